"""A strategy by its name, run over bars: weights and backtest in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.engine.backtest import Inputs, Options, backtest_panel
from tidemill.engine.panel import bars_panel, weights_panel
from tidemill.engine.result import BacktestResult
from tidemill.strategies.registry import strategy, target_weights

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
) -> BacktestResult:
    """Run the strategy `name` over raw `bars`; the other arguments are those of `backtest`.

    A strategy over predictions needs `predictions`; the account then starts with the first of them, so that a year
    without any does not count as a year without profit. A strategy over bars looks at `signal_bars` (adjusted prices,
    the same rows in the same order), or at `bars` where nothing needs adjusting. `options.resize` is the strategy's
    own. Raises InputError as `target_weights` and `backtest` do.
    """
    chosen = strategy(name)
    settings = (options or Options())._replace(resize=chosen.resize)
    if chosen.needs == "predictions":
        if predictions is None or predictions.is_empty():
            raise InputError(f"{name} needs predictions. Train a model first, or choose a strategy over bars.")
        weights = target_weights(name, predictions, params, instruments)
        panel = bars_panel(_from_first(bars, weights), interval)
        targets, stray = weights_panel(weights, panel.axes)
    else:
        seen = bars if signal_bars is None else signal_bars
        if seen.height != bars.height:
            raise InputError("The bars that signals are made from must have the same rows as the bars that are traded.")
        weights = target_weights(name, seen, params, instruments)
        panel, stray = bars_panel(bars, interval), 0
        targets = panel.spread(weights.get_column("weight"))
    inputs = Inputs(panel, targets, interval, instruments, adjustments, suspected, stray)
    return backtest_panel(inputs, costs or CostSpec(), settings)


def _from_first(bars: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return bars.filter(pl.col("open_time") >= weights.get_column("open_time").min())
