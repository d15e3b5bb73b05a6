"""What a run came to: figures of every book by name, the benchmark beside them, and where the report is."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.domain.limits_reached import LimitsReached
from tidemill.queries.experiments import latest_experiment
from tidemill.storage.lake import Lake
from tidemill.storage.made_from import read_made
from tidemill.study.metrics import engine_metrics, limits_of, portfolio_metrics
from tidemill.study.places import MADE_FROM, report_in
from tidemill.study.registry import Registry
from tidemill.study.sources import venue_of
from tidemill.study.study import dataset_for, study_key
from tidemill.study.tables import BENCHMARK, EQUITY, FAILURES, METRICS, PORTFOLIO, SUMMARY

if TYPE_CHECKING:
    import polars as pl

Figure = float | None


class BookResult(msgspec.Struct, frozen=True, kw_only=True):
    """One book out of sample. None where a figure is not defined.

    ic … turnover: skill of its predictions, with 95 % intervals; groups: bar times, or symbols, over which it was measured.
    sharpe_gross, sharpe, sharpe_low, sharpe_high: a year, before costs, after them, and its 95 % interval. fees, slippage,
    borrow: in cash. trial: its id in the ledger. deflated_sharpe … counted_since: what the number of trials on this source
    makes of it. pbo: probability of backtest overfitting.
    """

    book: str
    ic: Figure = None
    ic_low: Figure = None
    ic_high: Figure = None
    rank_ic: Figure = None
    rank_ic_low: Figure = None
    rank_ic_high: Figure = None
    icir: Figure = None
    rank_icir: Figure = None
    t_stat: Figure = None
    hit_rate: Figure = None
    turnover: Figure = None
    groups: int = 0
    sharpe_gross: Figure = None
    sharpe: Figure = None
    sharpe_low: Figure = None
    sharpe_high: Figure = None
    total_return: Figure = None
    annual_return: Figure = None
    max_drawdown: Figure = None
    trades: int = 0
    fees: Figure = None
    slippage: Figure = None
    borrow: Figure = None
    portfolio_turnover: Figure = None
    trial: str | None = None
    deflated_sharpe: Figure = None
    deflated_sharpe_clustered: Figure = None
    pbo_when_best: Figure = None
    trials: int | None = None
    trial_clusters: int | None = None
    expected_maximum_sharpe: Figure = None
    expected_maximum_sharpe_clustered: Figure = None
    pbo: Figure = None
    pbo_trials: int | None = None
    pbo_blocks: int | None = None
    counted_since: datetime | None = None

    @property
    def costs(self) -> Figure:
        """Fees, slippage and borrow together, in cash."""
        return _costs(self.fees, self.slippage, self.borrow)


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The benchmark over the same bars, after its own costs (in cash)."""

    sharpe: Figure
    annual_return: Figure
    max_drawdown: Figure
    costs: Figure


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Figures by book, the first paragraph of the report, and where the report is.

    key: `dataset` of its rows in the lake's tables of results (signals, equity, trades, positions, metrics). metrics: of every
    book and the benchmark, by the names of `performance_metrics`. sentences: empty when no report was written yet. failed: the
    engines that are none of the books, and why. limits: what they did to each book, None where it was traded without any.
    """

    experiment: str
    dataset: str
    key: str
    path: Path
    books: tuple[BookResult, ...]
    benchmark: BenchmarkResult
    metrics: dict[str, dict[str, Figure]]
    sentences: tuple[str, ...]
    failed: dict[str, str] = {}
    limits: dict[str, LimitsReached | None] = {}


async def result_of(settings: Settings, experiment: Experiment) -> Result:
    """The stored result of an experiment. InputError when it has not been run."""
    return await asyncio.to_thread(_result, settings, experiment)


async def latest_result(settings: Settings) -> Result | None:
    """The result whose report was written last; None when there is none."""
    experiment = await latest_experiment(settings)
    return None if experiment is None else await result_of(settings, experiment)


def _result(settings: Settings, stated: Experiment) -> Result:
    registry = Registry.of(settings).with_files(stated.modules)
    experiment = registry.known(stated)
    venue, lake = venue_of(experiment.dataset, settings), Lake(settings.lake)
    key = study_key(experiment, venue, registry)
    if lake.manifest(METRICS, key, PORTFOLIO) is None:
        raise InputError(f"The experiment {experiment.name!r} has no result yet. Run it: `tidemill run`.")
    path, portfolio = report_in(settings, key), portfolio_metrics(lake, key)
    return Result(
        experiment=experiment.name,
        dataset=dataset_for(experiment.dataset, venue).key,
        key=key,
        path=path,
        books=tuple(msgspec.convert(engine_metrics(lake, key).to_dicts(), list[BookResult])),
        benchmark=_benchmark(lake, key, portfolio),
        metrics={row.pop("book"): row for row in portfolio.to_dicts()},
        sentences=_sentences(path.with_name(SUMMARY)),
        failed={engine: held.metadata["why"] for engine, held in lake.manifests(FAILURES, key).items()},
        limits=limits_of(lake, key),
    )


def _benchmark(lake: Lake, key: str, portfolio: pl.DataFrame) -> BenchmarkResult:
    row = next(row for row in portfolio.to_dicts() if row["book"] == BENCHMARK)
    totals = lake.manifests(EQUITY, key)[BENCHMARK].metadata
    costs = _costs(totals["fees"], totals["slippage"], totals["borrow"])
    return BenchmarkResult(
        sharpe=row["sharpe"], annual_return=row["annual_return"], max_drawdown=row["max_drawdown"], costs=costs
    )


def _costs(*parts: Figure) -> Figure:
    told = [part for part in parts if part is not None]
    return sum(told) if len(told) == len(parts) else None


def _sentences(path: Path) -> tuple[str, ...]:
    """The first paragraph of the report; empty when it was not written yet."""
    return tuple(read_made(path.with_name(MADE_FROM), path, list[str])) if path.is_file() else ()
