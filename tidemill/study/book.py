"""The one book: from predictions that count to target weights, fills and returns over a range of time.

A run, a promotion, a search, a cross-validation and a notebook trade through it, so that the same predictions over the same
range give the same returns to the bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from tidemill.domain.experiment import Experiment, LimitsSpec, NeutraliseSpec, StrategySpec
from tidemill.domain.limits_reached import OTHER_LIMITS, LimitsReached
from tidemill.domain.market import Instrument
from tidemill.market.column_files import read_sectors
from tidemill.provenance import fingerprint
from tidemill.strategies.benchmark import EQUAL_WEIGHT, benchmark_weights
from tidemill.study import code as code_of
from tidemill.study.sources import instruments_of, suspected_actions
from tidemill.study.study import Study

if TYPE_CHECKING:
    from tidemill.backtest.backtest import Options
    from tidemill.backtest.panel import Panel
    from tidemill.backtest.result import BacktestResult
    from tidemill.strategies.base import Weighed
    from tidemill.strategies.registry import Strategies


class Span(NamedTuple):
    """Orders are made in [start, end); None: to the last bar."""

    start: datetime
    end: datetime | None = None

    def of(self, frame: pl.DataFrame, column: str = "open_time") -> pl.DataFrame:
        """The rows of a frame that lie in it."""
        inside = pl.col(column) >= self.start
        return frame.filter(inside if self.end is None else inside & (pl.col(column) < self.end))


def book(study: Study, predictions: pl.DataFrame, span: Span, *, under: Experiment | None = None) -> BacktestResult:
    """The experiment's strategy on predictions over a range, after its costs.

    predictions: symbol, open_time, prediction; those that count and no others (`study.rejections`). under: the experiment whose
    limits bind, the study's own where none is given.
    """
    weights, notes = weighed(study, predictions, span)
    return with_notes(traded(study, weights, span, under=under), notes)


def with_notes(result: BacktestResult, notes: tuple[str, ...]) -> BacktestResult:
    """The same result with notes of what led to its weights before its own."""
    return dataclasses.replace(result, notes=(*notes, *result.notes)) if notes else result


def limit_notes(reached: LimitsReached | None) -> tuple[str, ...]:
    """Sentences about what its limits did to a book, and how it is seen without them where they kept it from adding."""
    if reached is None:
        return ()
    return (*reached.sentences(), *((OTHER_LIMITS,) if reached.levels else ()))


def tested(study: Study) -> Span:
    """From the first test window on: before it every prediction would be in sample."""
    return Span(study.folds[0].test_start)


def weighed(study: Study, predictions: pl.DataFrame, span: Span) -> Weighed:
    """Target weights of the experiment's strategy, neutral as it asks, and what a person should know of them.

    A range says from when orders are made; what looks at bars begins with the first of the dataset, and rebalancing is counted
    from the first test window, whichever range is asked for. A strategy over bars asks nothing of the predictions; every book
    then trades alike.
    """
    from tidemill.strategies.registry import weigh

    spec, known = resolved(study.experiment.strategy), study.registry.strategies
    bars = study.adjusted if sees_bars(spec, known) else None
    warming = span._replace(start=study.times[0])
    given = warming.of(study.adjusted) if known.find(spec.name).needs == "bars" else span.of(predictions)
    interval = study.dataset.interval
    return weigh(
        spec.name,
        given,
        spec.params,
        _instruments(study),
        interval,
        bars=bars,
        there=study.bars,
        anchor=tested(study).start,
        since=span.start,
        neutralise=spec.neutralise,
        known=known,
    )


def traded(
    study: Study, weights: pl.DataFrame, span: Span, *, benchmark: bool = False, under: Experiment | None = None
) -> BacktestResult:
    """Weights (symbol, open_time, weight) through the kernel over the raw bars of a range, after the experiment's costs.

    Corporate actions are booked; what is only suspected of being one earns and loses nothing, and the result holds the figures
    with it beside. benchmark: the weights are of the benchmark, and are kept to, without limits. under: as for `book`.
    """
    from tidemill.backtest.backtest import BacktestInputs, backtest_panel  # numba: 0.3 s that a run with nothing to do saves
    from tidemill.backtest.panel import weights_panel

    panel = _panel(study, span)
    targets, stray = weights_panel(weights, panel.axes)
    suspected = span.of(suspected_actions(study))
    inputs = BacktestInputs(
        panel,
        targets,
        study.dataset.interval,
        instruments=_instruments(study),
        adjustments=span.of(study.adjustments, "ex_time"),
        suspected=suspected if suspected.height else None,
        stray_weights=stray,
    )
    limits = None if benchmark else (under or study.experiment).limited
    result = backtest_panel(inputs, study.experiment.costs, options_of(limits, resize=benchmark or resizes(study)))
    stopped = result.limits is not None and result.limits.levels
    return dataclasses.replace(result, notes=(*result.notes, OTHER_LIMITS)) if stopped else result


def options_of(limits: LimitsSpec | None, *, resize: bool) -> Options:
    """How the kernel trades under what an experiment says of its limits, or as in research where it says nothing."""
    from tidemill.backtest.backtest import Options
    from tidemill.risk.drawdown import DrawdownPolicy
    from tidemill.risk.limits import Limits

    if limits is None:
        return Options(resize=resize)
    levels = limits.drawdown
    return Options(
        limits=Limits(limits.position, limits.gross, limits.net),
        drawdown_policy=DrawdownPolicy(levels.block, levels.reduce, levels.flatten),
        collar=limits.collar,
        resize=resize,
    )


def require_benchmark(study: Study) -> None:
    """UnknownNameError where the benchmark is a symbol of which the dataset has no bar in the range that is tested."""
    if study.experiment.benchmark != EQUAL_WEIGHT:
        benchmark_weights(tested(study).of(study.bars), study.experiment.benchmark)


def benchmark_book(study: Study, span: Span) -> BacktestResult:
    """What the experiment is measured against, bought and held over a range."""
    calendars = {symbol: instrument.calendar for symbol, instrument in _instruments(study).items()}
    weights = benchmark_weights(span.of(study.bars), study.experiment.benchmark, calendars)
    return traded(study, weights, span, benchmark=True)


def book_fingerprint(study: Study) -> str:
    """Of everything that decides what becomes of predictions in a book: which of them count, code, strategy with the sectors of
    its file, limits where there are any, costs, bars.
    """
    experiment, known = study.experiment, study.registry.strategies
    code = (known.code_version(experiment.strategy.name), code_of.rejections(), code_of.signals(), code_of.backtests())
    limits = () if experiment.limited is None else (experiment.limited,)
    stated = (resolved(experiment.strategy), experiment.validation, experiment.costs, *limits)
    return fingerprint(code, *stated, bars_versions(study))


def resolved(spec: StrategySpec) -> StrategySpec:
    """`spec` with the sectors of its file in it, so that their content and not their path decides what is stale."""
    return spec if spec.neutralise is None else msgspec.structs.replace(spec, neutralise=with_file(spec.neutralise))


def with_file(spec: NeutraliseSpec) -> NeutraliseSpec:
    """`spec` with the sectors of its file in it."""
    if spec.sector_file is None:
        return spec
    from tidemill.strategies.neutral import with_sectors

    return with_sectors(spec, read_sectors(spec.sector_file))


def sees_bars(spec: StrategySpec, known: Strategies) -> bool:
    """Whether the weights depend on bars and not on predictions alone."""
    return known.find(spec.name).needs != "predictions" or (spec.neutralise is not None and spec.neutralise.by == "beta")


def bars_versions(study: Study) -> tuple[str, str, str, str]:
    """Of everything that a book reads beside its predictions: bars, corporate actions, those that are suspected, and what the
    instruments may do, when they trade and what they cost.
    """
    suspected, instruments = suspected_actions(study).rows(), sorted(_instruments(study).items())
    return study.bars_version, fingerprint(study.action_rows), fingerprint(suspected), fingerprint(instruments)


def resizes(study: Study) -> bool:
    spec = study.experiment.strategy
    return spec.neutralise is not None or study.registry.strategies.find(spec.name).resize


def _panel(study: Study, span: Span) -> Panel:
    from tidemill.backtest.panel import bars_panel

    return study.once(("panel", span), lambda: bars_panel(span.of(study.bars), study.dataset.interval))  # of all books


def _instruments(study: Study) -> Mapping[str, Instrument]:
    return study.once("instruments", lambda: instruments_of(study.workspace, study.dataset.venue))
