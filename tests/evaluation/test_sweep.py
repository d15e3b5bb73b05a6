"""Sweeps of a person's own bars: what is understood, that every run is the single backtest and one trial."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.study.panels import daily_bars
from tidemill.domain.errors import InputError, UnavailableError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.evaluation.backtest import backtest_frame, run_backtest, weights_from
from tidemill.evaluation.sweep import grid_of, run_sweep, sweep_frame
from tidemill.market.column_files import read_sectors
from tidemill.queries.trials import list_trials
from tidemill.study.workspace import Workspace

COSTS = {"fee_bps": 10.0, "slippage_bps": 2.0}
GRID = {"fast": [2, 5, 20], "slow": [10, 20]}


@pytest.fixture
def bars() -> pl.DataFrame:
    frame = daily_bars(120, ("AAA", "BBB", "CCC"))
    return frame.rename({"date": "open_time"}).with_columns(pl.col("open_time").cast(pl.Datetime("us", "UTC")))


def test_each_run_is_one_trial_and_the_same_as_its_single_backtest(workspace: Workspace, bars: pl.DataFrame) -> None:
    def ledger() -> nullcontext[Workspace]:
        return nullcontext(workspace)

    runs, skipped, notes = sweep_frame(bars, "sma_cross", GRID, ledger=ledger, **COSTS)
    assert (runs.height, skipped) == (4, 2)
    assert any("left out" in note for note in notes)
    assert runs["trial"].n_unique() == 4
    assert workspace.call(list_trials, workspace.database).height == 4
    row = runs.row(1, named=True)
    assert (row["fast"], row["slow"]) == (2, 20)
    single = backtest_frame(bars, None, strategy="sma_cross", params={"fast": 2, "slow": 20}, ledger=ledger, **COSTS)
    assert row["trial"] == single.trial
    figures = (row["final_equity"], row["fees"], row["slippage"], row["trades"], row["max_drawdown"], row["turnover"])
    assert figures == (
        single.final_equity, single.fees, single.slippage, single.trades.height, single.max_drawdown, single.turnover
    )  # fmt: skip
    sweep_frame(bars, "sma_cross", GRID, ledger=ledger, **COSTS)
    assert workspace.call(list_trials, workspace.database).height == 4  # a rerun counts once


def test_without_a_database_the_sweep_is_there_and_says_that_it_is_uncounted(bars: pl.DataFrame) -> None:
    @contextmanager
    def gone() -> Iterator[Workspace]:
        raise UnavailableError("Nothing answers.")
        yield

    runs, _, notes = sweep_frame(bars, "sma_cross", GRID, ledger=gone, **COSTS)
    assert runs["trial"].null_count() == 4
    assert any("not counted" in note for note in notes)


def test_the_command_s_answer_is_sorted_and_written(bars: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    bars.write_csv(path)
    found = run_sweep(path, strategy="sma_cross", grid=GRID, output=tmp_path / "made", **COSTS)
    ratios = [run["sharpe"] for run in found["runs"]]
    assert ratios == sorted(ratios, reverse=True)
    assert (found["trials"], found["skipped"], found["bars"]) == (0, 2, bars.height)
    assert pl.read_parquet(tmp_path / "made" / "sweep.parquet").to_dicts() == found["runs"]
    with pytest.raises(InputError, match="works on predictions"):
        run_sweep(path, strategy="quantile", grid=GRID, output=None, **COSTS)
    with pytest.raises(InputError, match="cannot be written"):
        run_sweep(path, strategy="sma_cross", grid=GRID, output=path / "inside", **COSTS)


@pytest.mark.parametrize(
    ("texts", "grid"),
    [
        (("fast=5:20:5,slow=50",), {"fast": [5, 10, 15, 20], "slow": [50]}),
        (("fast=5/10/20", "slow=100:102"), {"fast": [5, 10, 20], "slow": [100, 101, 102]}),
        (("level=0.1:0.3:0.1",), {"level": [0.1, 0.2, 0.3]}),
        (("kind=a/b,on=true",), {"kind": ["a", "b"], "on": [True]}),
    ],
)
def test_grids_are_read(texts: tuple[str, ...], grid: dict[str, list[Any]]) -> None:
    assert grid_of(texts) == grid


@pytest.mark.parametrize("text", ["fast", "fast=", "=3", "fast=5:", "fast=9:5:1", "fast=1:9:0", "fast=1:9:-1", "fast=1:2:3:4",
                                  "fast=a:b:c", "fast=1:1e9:1", "fast=1,fast=2", "fast=nan:5:1"])  # fmt: skip
def test_grids_that_make_no_sense_are_named(text: str) -> None:
    with pytest.raises(InputError, match="sweep"):
        grid_of((text,))


def test_ones_own_weights_come_back_as_frames_and_taken_apart(bars: pl.DataFrame, tmp_path: Path) -> None:
    first = bars["open_time"].min()
    weights = pl.DataFrame({"symbol": ["AAA", "BBB"], "open_time": [first, first], "weight": [0.5, 0.25]})
    result = backtest_frame(bars, weights, strategy=None, params={}, **COSTS)
    assert result.positions["symbol"].unique().sort().to_list() == ["AAA", "BBB"]
    assert result.open_trades.height == 2
    assert result.contributions["profit"].sum() == pytest.approx(result.final_equity - result.capital)
    bars.write_parquet(tmp_path / "bars.parquet")
    weights.write_csv(tmp_path / "weights.csv")
    found = run_backtest(
        tmp_path / "bars.parquet", strategy=None, weights=tmp_path / "weights.csv", params={}, output=None, **COSTS
    )
    assert found["final_equity"] == result.final_equity
    total = next(row for row in found["attribution"] if row["part"] == "total")
    assert total["profit"] == pytest.approx(result.final_equity - result.capital)


def test_weights_can_be_made_neutral(bars: pl.DataFrame, tmp_path: Path) -> None:
    first = bars["open_time"].min()
    weights = pl.DataFrame({"symbol": ["AAA", "BBB", "CCC"], "open_time": [first] * 3, "weight": [0.3, -0.1, 0.1]})
    (tmp_path / "sectors.csv").write_text("Ticker,Sector\nAAA,x\nBBB,x\nCCC,y\n")
    spec = NeutraliseSpec(by="sector", sectors=dict(read_sectors(tmp_path / "sectors.csv").iter_rows()))
    result = backtest_frame(bars, weights, strategy=None, params={}, can_short=True, neutralise=spec, **COSTS)
    assert result.fills.select("symbol", "side").rows() == [("BBB", "sell"), ("AAA", "buy")]
    assert any("a sector was closed" in note for note in result.notes)
    assert result.fills["price"].dot(result.fills["quantity"]) == pytest.approx(200_000, rel=0.05)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weight": ["much"]}, "not numbers"),
        ({"open_time": ["2021-01-05"]}, "cannot be read"),
        ({"symbol": ["ZZZ"]}, "ZZZ"),
        ({"symbol": [None]}, "have no symbol"),
        ({"weight": [float("inf")]}, "infinite"),
    ],
)
def test_wrong_weights_are_told(bars: pl.DataFrame, change: dict[str, list[Any]], match: str) -> None:
    columns: dict[str, list[Any]] = {"symbol": ["AAA"], "open_time": [bars["open_time"][3]], "weight": [0.1], **change}
    with pytest.raises(InputError, match=match):
        backtest_frame(bars, pl.DataFrame(columns), strategy=None, params={}, **COSTS)


def test_what_is_no_frame_of_bars_or_weights_is_told(bars: pl.DataFrame) -> None:
    row = pl.DataFrame({"symbol": ["AAA"], "open_time": [bars["open_time"][3]], "weight": [0.1]})
    with pytest.raises(InputError, match="polars frame"):
        weights_from([1, 2], "the weights")  # type: ignore[arg-type]  # what a person may give
    with pytest.raises(InputError, match="volume"):
        backtest_frame(bars.drop("volume"), row, strategy=None, params={}, **COSTS)
    with pytest.raises(InputError, match="more than once"):
        backtest_frame(bars, pl.concat([row, row]), strategy=None, params={}, **COSTS)
    early = row.with_columns(pl.col("open_time").dt.offset_by("-10y"))
    with pytest.raises(InputError, match="time of a bar"):
        backtest_frame(bars, early, strategy=None, params={}, **COSTS)
    both = row.with_columns(pl.col("open_time").alias("date"), pl.col("open_time").alias("ts")).drop("open_time")
    assert weights_from(both, "the weights").height == 1
