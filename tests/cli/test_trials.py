"""The ledger on the command line: what was tried is listed, compared, and forgotten only on purpose."""

import json
import shutil
from pathlib import Path

from tests.cli.conftest import Tidemill


def test_backtests_are_listed_and_compared(home: Path, panel_file: Path, tidemill: Tidemill) -> None:
    assert "0 trials" in tidemill("trials", "list").out
    given = ("backtest", "--input", panel_file, "--strategy", "sma_cross", "--json", "--param")
    ids = [tidemill(*given, f"fast={fast}", "slow=12").json["trial"] for fast in (2, 4, 6, 2)]
    assert ids[0] == ids[3]
    answer = tidemill("trials", "list", "--json").json
    assert [row["trial"] for row in answer["trials"]] == ids[:3]
    assert {row["family"] for row in answer["trials"]} == {"panel.1d"}
    table = tidemill("trials", "list", "--limit", 2)
    assert "3 trials (the newest 2 shown)" in table.out
    compared = tidemill("trials", "compare", "--experiment", "backtest", "--json").json
    assert (compared["counted"], len(compared["rows"])) == (3, 3)
    assert 0.0 <= compared["pbo"] <= 1.0
    assert {row["trial"] for row in tidemill("trials", "compare", *ids[:2], "--json").json["rows"]} == set(ids[:2])
    shown = tidemill("trials", "compare", *ids[:2]).out
    assert "3 trials on panel.1d" in shown
    assert "PBO among 2" in shown


def test_trials_whose_returns_are_gone_are_named(home: Path, panel_file: Path, tidemill: Tidemill) -> None:
    given = ("backtest", "--input", panel_file, "--strategy", "sma_cross", "--json", "--param")
    ids = [tidemill(*given, f"fast={fast}", "slow=12").json["trial"] for fast in (2, 4)]
    assert "any more" not in tidemill("trials", "compare", *ids).out
    (first, *_) = sorted(home.rglob("trials/dataset=*/partition=*/manifest.json"))
    shutil.rmtree(first.parent)
    shown = tidemill("trials", "compare", *ids).out
    (lost,) = (trial for trial in ids if f"no interval ({trial})" in shown)
    assert "1 trial has no returns any more" in shown
    rows = {row["trial"]: row["returns_lost"] for row in tidemill("trials", "compare", *ids, "--json").json["rows"]}
    assert rows == {trial: trial == lost for trial in ids}
    findings = json.loads(tidemill("doctor", "--json").out)
    (told,) = (finding for finding in findings if finding["name"] == "trials")
    assert told["detail"].startswith("1 without their returns")
    tidemill(*given, f"fast={(2, 4)[ids.index(lost)]}", "slow=12")
    assert "any more" not in tidemill("trials", "compare", *ids).out


def test_a_wrong_name_and_a_wrong_use_are_told_apart(home: Path, tidemill: Tidemill) -> None:
    assert "trials list" in tidemill("trials", "compare", "nothing").error
    assert tidemill("trials", "compare").code == 2
    assert tidemill("trials", "compare", "one", "--experiment", "other").code == 2


def test_a_reset_needs_a_reason_and_is_told_afterwards(home: Path, panel_file: Path, tidemill: Tidemill) -> None:
    tidemill("backtest", "--input", panel_file, "--strategy", "sma_cross", "--param", "fast=2", "slow=12")
    assert tidemill("trials", "reset", "--yes").code == 2
    assert "1 trials are forgotten" in tidemill("trials", "reset", "--yes", "--reason", "new data").out
    listed = tidemill("trials", "list").out
    assert "forgot 1 trials: new data" in listed
    assert tidemill("trials", "list", "--json").json["forgotten"] == 1
