"""All strategies by name, and the one door to their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy
from tidemill.strategies.ranked import LONG_ONLY_TOP_K, QUANTILE
from tidemill.strategies.sma_cross import SMA_CROSS

if TYPE_CHECKING:
    import polars as pl

_STRATEGIES: dict[str, Strategy] = {item.name: item for item in (QUANTILE, LONG_ONLY_TOP_K, SMA_CROSS)}


def strategies() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(_STRATEGIES))


def strategy(name: str) -> Strategy:
    """The strategy of that name, else UnknownNameError with the choices."""
    if name not in _STRATEGIES:
        raise UnknownNameError("strategy", name, strategies())
    return _STRATEGIES[name]


def register(item: Strategy) -> None:
    """Make a strategy of one's own known. InputError if its name is taken."""
    if item.name in _STRATEGIES:
        raise InputError(f"There is already a strategy named {item.name!r}. Give yours another name.")
    _STRATEGIES[item.name] = item


def target_weights(
    name: str, inputs: pl.DataFrame, params: Mapping[str, Any], instruments: Mapping[str, Instrument]
) -> pl.DataFrame:
    """Weights frame (symbol, open_time, weight) of a strategy.

    inputs: predictions (symbol, open_time, prediction) or adjusted bars, whichever `strategy(name).needs`. Raises
    UnknownNameError for the strategy or a parameter, InputError for a wrong value or a missing column.
    """
    chosen = strategy(name)
    column = "prediction" if chosen.needs == "predictions" else "close"
    missing = [needed for needed in ("symbol", "open_time", column) if needed not in inputs.columns]
    if missing:
        raise InputError(f"{name} works on {chosen.needs}; the column {', '.join(missing)} is missing.")
    return chosen.weigh(inputs, chosen.parse(params), instruments)
