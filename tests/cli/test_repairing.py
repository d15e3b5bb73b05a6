"""`data repair`: a damaged lake."""

import json
from pathlib import Path

import polars as pl

from tests.cli.conftest import Tidemill
from tests.study.panels import daily_bars
from tidemill.study.tables import BARS


def test_a_person_is_told_the_command_and_the_command_mends(home: Path, tidemill: Tidemill) -> None:
    path = home / "panel.csv"
    daily_bars(120, ("AAA", "BBB")).write_csv(path)
    assert tidemill("data", "import", path).code == 0
    file = next(home.rglob(f"lake/{BARS}/*/*/*.parquet"))
    file.write_bytes(b"\0" * file.stat().st_size)
    answer = tidemill("data", "repair", "--json")
    assert answer.code == 0, answer
    told = json.loads(answer.out)
    assert [one["why"] for one in told["restored"]] == ["its file holds other bytes than were written"]
    assert pl.read_parquet(file).height > 0
    assert "restored" not in tidemill("data", "repair").out
