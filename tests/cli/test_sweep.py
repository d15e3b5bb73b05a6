"""`tidemill backtest` with a grid of parameters, and with weights made neutral."""

from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Tidemill
from tests.study.panels import daily_bars


@pytest.fixture
def bars(work: Path) -> Path:
    path = work / "bars.csv"
    daily_bars(80, ("AAA", "BBB")).write_csv(path)
    return path


def test_a_sweep_lists_its_runs_and_counts_each(tidemill: Tidemill, home: Path, bars: Path, work: Path) -> None:
    given = ("backtest", "--input", bars, "--strategy", "sma_cross", "--sweep", "fast=2:6:2,slow=5/10")
    answer = tidemill(*given, "--fee-bps", "10", "--output", work / "out", "--json")
    assert answer.code == 0
    found = answer.json
    assert (len(found["runs"]), found["trials"], found["skipped"]) == (5, 5, 1)
    assert pl.read_parquet(work / "out" / "sweep.parquet").height == 5
    single = tidemill(
        "backtest", "--input", bars, "--strategy", "sma_cross", "--param", "fast=2", "slow=5", "--fee-bps", "10", "--json"
    )
    run = next(run for run in found["runs"] if (run["fast"], run["slow"]) == (2, 5))
    assert (run["trial"], run["final_equity"]) == (single.json["trial"], single.json["final_equity"])
    shown = tidemill(*given)
    assert shown.code == 0
    assert "5 trials in the ledger" in shown.out


def test_a_sweep_that_makes_no_sense_is_told(tidemill: Tidemill, bars: Path) -> None:
    of = ("backtest", "--input", bars, "--strategy", "sma_cross")
    assert "fast=5:50:5" in tidemill(*of, "--sweep", "fast").error
    assert "parameter of sma_cross" in tidemill(*of, "--sweep", "window=3").error
    assert tidemill(*of, "--sweep", "fast=3", "--param", "slow=9").code == 2
    assert tidemill("backtest", "--input", bars, "--weights", bars, "--sweep", "fast=3").code == 2


def test_weights_are_made_neutral(tidemill: Tidemill, home: Path, bars: Path, work: Path) -> None:
    (work / "weights.csv").write_text("symbol,date,weight\nAAA,2021-01-05,0.5\nBBB,2021-01-05,0.1\n")
    (work / "sectors.csv").write_text("symbol,sector\nAAA,x\nBBB,y\n")
    of = ("backtest", "--input", bars, "--weights", work / "weights.csv", "--json")
    plain, neutral = tidemill(*of), tidemill(*of, "--neutralise", "sector", "--sectors", work / "sectors.csv")
    assert (plain.code, neutral.code) == (0, 0)
    assert plain.json["final_equity"] != neutral.json["final_equity"]
    assert plain.json["trial"] != neutral.json["trial"]
    assert {row["part"] for row in neutral.json["attribution"]} == {"total", "costs", "market", "symbols"}
    assert "sold short" in tidemill(*of, "--neutralise", "beta").error
    assert tidemill(*of, "--neutralise", "sector").code == 2
    assert tidemill(*of, "--sectors", work / "sectors.csv").code == 2
