"""`features prove`: the exit code, the JSON that others rely on, and a file that leaks in every way."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Tidemill
from tests.features.conftest import random_panel
from tidemill.domain.intervals import Interval
from tidemill.evaluation import proving
from tidemill.features.api import feature_set
from tidemill.market.fear_greed import DELAY
from tidemill.validation.causality.proof import CANNOT_SEE

MODULE = """
import polars as pl

feature("distance", close / mean(close, 20) - 1, unit="ratio", about="distance to the mean")
feature("tomorrow", ref(close, -1) / close - 1, unit="ratio", about="the next return")


def scaled(bars: pl.DataFrame) -> pl.DataFrame:
    close = pl.col("close")
    return bars.select(
        "symbol", "open_time",
        whole=close / close.mean().over("symbol"),
        own=close / close.shift(1).over("symbol") - 1,
    )


features(scaled, lookback=2)
"""


@pytest.fixture
def panel_of_bars(work: Path) -> Path:
    path = work / "bars.parquet"
    random_panel(17, symbols=3, slots=110).write_parquet(path)
    return path


def all_proven(*names: str) -> dict[str, object]:
    return {"proven": list(names), "refuted": [], "not_judged": [], "cannot_see": CANNOT_SEE}


def test_shipped_features_are_proven_and_the_exit_code_is_zero(tidemill: Tidemill, panel_of_bars: Path) -> None:
    answer = tidemill("features", "prove", "--input", panel_of_bars, "--set", "KMID,rsi_14,cs_rank_roc_5", "--json")
    assert answer.code == 0, answer
    assert answer.json == all_proven("KMID", "rsi_14", "cs_rank_roc_5")


# What is proven without a file is the columns alone, which tests/steps/checks/test_causality.py shows for a study.
@pytest.mark.parametrize("joined", [True, pytest.param(False, marks=pytest.mark.long)])
def test_the_fear_and_greed_index_is_proven_on_made_up_values_and_through_its_join(
    tidemill: Tidemill, work: Path, panel_of_bars: Path, joined: bool
) -> None:
    first = pl.read_parquet(panel_of_bars)["open_time"].min()
    assert isinstance(first, datetime)
    lines = [f"{first + timedelta(days=day - 20):%Y-%m-%d},{day * 7 % 101}" for day in range(150)]
    (work / "index.csv").write_text("\n".join(["date,value", *lines]))
    given = ("--fear-greed", f"file:{work / 'index.csv'}") if joined else ()
    answer = tidemill("features", "prove", "--input", panel_of_bars, "--set", "fear_greed", "--json", *given)
    assert answer.code == 0, answer
    assert answer.json == all_proven("fear_greed", "fear_greed_change_7")


def test_an_index_that_is_joined_on_its_stamp_is_refuted(
    panel_of_bars: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars, honest = pl.read_parquet(panel_of_bars), proving.join_known
    start = bars["open_time"].min()
    assert isinstance(start, datetime)
    days = [f"{start + timedelta(days=day - 20):%Y-%m-%d},{day * 7 % 101}" for day in range(150)]
    (work / "index.csv").write_text("\n".join(["date,value", *days]))

    def on_stamp(bars: pl.DataFrame, index: pl.DataFrame, interval: Interval) -> pl.DataFrame:
        return honest(bars, index.with_columns(pl.col("known_at") - DELAY), interval)

    monkeypatch.setattr(proving, "join_known", on_stamp)
    proof = proving.prove_on_bars(feature_set("fear_greed", "KMID"), bars, fear_greed=f"file:{work / 'index.csv'}")
    assert proof.proven == ("KMID",)
    assert [one.feature for one in proof.refuted] == ["fear_greed", "fear_greed_change_7"]


def test_a_file_of_ones_own_is_judged_feature_by_feature(tidemill: Tidemill, work: Path, panel_of_bars: Path) -> None:
    module = work / "mine.py"
    module.write_text(MODULE)
    answer = tidemill("features", "prove", "--input", panel_of_bars, "--module", module, "--json")
    assert answer.code == 1
    assert answer.json["proven"] == ["distance", "own"]
    assert [set(one) for one in answer.json["refuted"]] == [{"feature", "symbol", "time", "why", "fails"}] * 2
    assert [one["feature"] for one in answer.json["refuted"]] == ["tomorrow", "whole"]
    symbols = pl.read_parquet(panel_of_bars)["symbol"].unique()
    assert all(one["symbol"] in symbols for one in answer.json["refuted"])
    assert answer.err == "Error: 2 features cannot be shipped: tomorrow, whole.\n"


def test_a_person_reads_what_changed(tidemill: Tidemill, work: Path, panel_of_bars: Path) -> None:
    module = work / "mine.py"
    module.write_text('feature("close_after", ref(close, -1))\n')
    answer = tidemill("features", "prove", "--input", panel_of_bars, "--module", module)
    assert answer.code == 1
    assert "0 features proven, 1 refuted." in answer.out
    assert "close_after" in answer.out
    told = " ".join(answer.out.split())
    assert "its value changes with" in told
    assert CANNOT_SEE in told


def test_a_function_that_fails_is_not_proven_and_the_rest_is(tidemill: Tidemill, work: Path, panel_of_bars: Path) -> None:
    module = work / "mine.py"
    module.write_text(
        'feature("distance", close / mean(close, 20) - 1)\n\n\n'
        'def broken(bars):\n    raise ValueError("no idea")\n\n\nfeatures(broken, columns=["x"])\n'
    )
    answer = tidemill("features", "prove", "--input", panel_of_bars, "--module", module, "--json")
    assert answer.code == 1
    assert answer.json["proven"] == ["distance"]
    (refuted,) = answer.json["refuted"]
    assert "no idea" in refuted["why"]
    assert refuted["fails"]


def test_what_cannot_be_read_or_named_is_one_sentence(tidemill: Tidemill, work: Path, panel_of_bars: Path) -> None:
    assert "does not exist" in tidemill("features", "prove", "--input", work / "none.csv").error
    assert "no_such" in tidemill("features", "prove", "--input", panel_of_bars, "--set", "no_such").error
    both = tidemill("features", "prove", "--input", panel_of_bars, "--set", "classic", "--module", work / "mine.py")
    assert both.code == 2
