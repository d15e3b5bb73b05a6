"""A strategy by its name, run over bars: weights and backtest in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tidemill.backtest.backtest import BacktestInputs, Options, backtest_panel
from tidemill.backtest.panel import Indices, Panel, bars_panel, column, weights_panel
from tidemill.backtest.result import BacktestResult
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import CostSpec, NeutraliseSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.matching.rules import Floats
from tidemill.strategies.base import Strategy, closes
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies, weigh, weights_over_bars

if TYPE_CHECKING:
    import polars as pl


def backtest_strategy(
    name: str,
    params: Mapping[str, Any],
    bars: pl.DataFrame,
    *,
    interval: Interval,
    instruments: Mapping[str, Instrument],
    predictions: pl.DataFrame | None = None,
    signal_bars: pl.DataFrame | None = None,
    adjustments: pl.DataFrame | None = None,
    costs: CostSpec | None = None,
    suspected: pl.DataFrame | None = None,
    options: Options | None = None,
    neutralise: NeutraliseSpec | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
) -> BacktestResult:
    """Run the strategy `name` of `known` over raw `bars`; the other arguments are those of `backtest`.

    A strategy over predictions needs `predictions`; the account then starts with the first of them, so that a year
    without any does not count as a year without profit. A strategy over bars looks at `signal_bars` (adjusted prices,
    the same rows in the same order), or at `bars` where nothing needs adjusting; one that needs both sizes by them too.
    `options.resize` is the strategy's own. neutralise: a step after the strategy (`strategies.neutral`).
    Raises InputError as `weigh` and `backtest` do.
    """
    chosen = known.find(name)
    resize = chosen.resize or neutralise is not None
    settings = (options or Options())._replace(resize=resize)
    seen = bars if signal_bars is None else signal_bars
    if chosen.needs == "bars" and neutralise is None:
        panel, targets = targets_over_bars(chosen, chosen.parse(params), bars, seen, interval, instruments)
        inputs = BacktestInputs(panel, targets, interval, instruments, adjustments, suspected)
        return backtest_panel(inputs, costs or CostSpec(), settings)
    if chosen.needs != "bars" and (predictions is None or predictions.is_empty()):
        raise InputError(f"{name} needs predictions. Train a model first, or choose a strategy over bars.")
    given = seen if chosen.needs == "bars" or predictions is None else predictions
    weighed = weigh(name, given, params, instruments, interval, bars=seen, there=bars, neutralise=neutralise, known=known)
    panel = bars_panel(bars if chosen.needs == "bars" else _from_first(bars, weighed.weights), interval)
    targets, stray = weights_panel(weighed.weights, panel.axes)
    inputs = BacktestInputs(panel, targets, interval, instruments, adjustments, suspected, stray)
    result = backtest_panel(inputs, costs or CostSpec(), settings)
    return dataclasses.replace(result, notes=(*weighed.notes, *result.notes)) if weighed.notes else result


def targets_over_bars(
    chosen: Strategy,
    params: msgspec.Struct,
    bars: pl.DataFrame,
    seen: pl.DataFrame,
    interval: Interval,
    instruments: Mapping[str, Instrument],
) -> tuple[Panel, Floats]:
    """The panel of `bars` and the targets on it of a strategy over bars that looks at `seen`."""
    if seen.height != bars.height:
        raise InputError(
            "The signal bars and the traded bars must have the same rows. Pass the same symbols and times in both."
        )
    panel = bars_panel(bars, interval)
    if chosen.signals is None:
        return panel, panel.spread(weights_over_bars(chosen, params, seen, instruments, interval))
    close, ends = closes_on(panel, bars, seen)
    return panel, panel.spread(chosen.signals(close, ends, params, panel.of_bars(panel.shares(ends))))


def closes_on(panel: Panel, bars: pl.DataFrame, seen: pl.DataFrame) -> tuple[Floats, Indices]:
    """`closes(seen)`; where the traded bars themselves are looked at and are regular, without looking for the symbols again."""
    if seen is not bars or not panel.regular:
        return closes(seen)
    slots, symbols = panel.axes.shape
    return column(bars, "close"), np.arange(1, symbols + 1, dtype=np.int64) * slots


def _from_first(bars: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return bars.filter(pl.col("open_time") >= weights.get_column("open_time").min())
