"""The one book: from the predictions of a range to target weights, fills and returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from tidemill.domain.experiment import StrategySpec
from tidemill.domain.market import Instrument
from tidemill.market.column_files import read_sectors
from tidemill.provenance import fingerprint
from tidemill.strategies.benchmark import benchmark_weights
from tidemill.study.rejections import tradable
from tidemill.study.scoring import predicted_by
from tidemill.study.sources import flags_of, instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import BENCHMARK, SIGNALS

if TYPE_CHECKING:
    from tidemill.backtest.result import BacktestResult
    from tidemill.strategies.base import Weighed


def resolved(spec: StrategySpec) -> StrategySpec:
    """`spec` with the sectors of its file in it, so that their content and not their path decides what is stale."""
    if spec.neutralise is None or spec.neutralise.sector_file is None:
        return spec
    from tidemill.strategies.neutral import with_sectors

    return msgspec.structs.replace(spec, neutralise=with_sectors(spec.neutralise, read_sectors(spec.neutralise.sector_file)))


def sees_bars(spec: StrategySpec) -> bool:
    """Whether the weights depend on bars and not on predictions alone."""
    from tidemill.strategies.registry import strategy

    return strategy(spec.name).needs != "predictions" or (spec.neutralise is not None and spec.neutralise.by == "beta")


def _weighed(study: Study, spec: StrategySpec, book: str, instruments: Mapping[str, Instrument]) -> Weighed:
    from tidemill.strategies.registry import strategy, weigh

    bars = study.adjusted if sees_bars(spec) else None
    # A strategy over bars asks for nothing of the predictions; every book then trades alike.
    over_bars = strategy(spec.name).needs == "bars"
    given = _tested(study, study.adjusted) if over_bars else tradable(study, book, predicted_by(study, book))
    return weigh(spec.name, given, spec.params, instruments, bars=bars, neutralise=spec.neutralise)


def _traded_bars(study: Study) -> pl.DataFrame:
    """Bars from the first test window on: nothing before it may be traded, since every prediction there would be in sample."""
    return study.once("traded", lambda: _tested(study, study.bars))


def _tested(study: Study, bars: pl.DataFrame) -> pl.DataFrame:
    return bars.filter(pl.col("open_time") >= study.folds[0].test_start)


def _run_book(study: Study, book: str) -> BacktestResult:
    from tidemill.backtest.backtest import Inputs, Options, backtest_panel  # numba: 0.3 s that a run with nothing to do saves
    from tidemill.backtest.panel import bars_panel, weights_panel
    from tidemill.strategies.registry import strategy

    bars, spec, interval = _traded_bars(study), study.experiment.strategy, study.dataset.interval
    weights = (
        benchmark_weights(bars, study.experiment.benchmark)
        if book == BENCHMARK
        else study.lake.scan(SIGNALS, study.key, partitions=[book]).select("symbol", "open_time", "weight").collect()
    )
    panel = study.once("panel", lambda: bars_panel(bars, interval))  # of all books
    targets, stray = weights_panel(weights, panel.axes)
    flags = flags_of(study)
    suspected = flags.filter((pl.col("flag") == "suspected_action") & (pl.col("open_time") >= study.folds[0].test_start))
    inputs = Inputs(
        panel,
        targets,
        interval,
        instruments=study.once("instruments", lambda: instruments_of(study.workspace, study.dataset.venue)),
        adjustments=study.adjustments.filter(pl.col("ex_time") >= study.folds[0].test_start),
        suspected=suspected.select("symbol", "open_time") if suspected.height else None,
        stray_weights=stray,
    )
    resize = book == BENCHMARK or spec.neutralise is not None or strategy(spec.name).resize
    return backtest_panel(inputs, study.experiment.costs, Options(resize=resize))


def _bars_print(study: Study) -> tuple[str, str]:
    return study.bars_version, fingerprint(study.adjustments.sort("symbol", "ex_time", "kind").rows())
