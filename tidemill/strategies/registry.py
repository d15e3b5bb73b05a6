"""All strategies by name, and the one door to their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy, Weighed
from tidemill.strategies.neutral import neutralised
from tidemill.strategies.ranked import LONG_ONLY_TOP_K, QUANTILE
from tidemill.strategies.sized import INVERSE_VOLATILITY, MEAN_VARIANCE
from tidemill.strategies.sma_cross import SMA_CROSS

if TYPE_CHECKING:
    import polars as pl

_SHIPPED = (QUANTILE, LONG_ONLY_TOP_K, INVERSE_VOLATILITY, MEAN_VARIANCE, SMA_CROSS)
_STRATEGIES: dict[str, Strategy] = {item.name: item for item in _SHIPPED}
_SOURCES: dict[str, str] = {}


def strategies() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(_STRATEGIES))


def strategy(name: str) -> Strategy:
    """The strategy of that name, else UnknownNameError with the choices."""
    if name not in _STRATEGIES:
        raise UnknownNameError("strategy", name, strategies())
    return _STRATEGIES[name]


def register(item: Strategy, source: str = "") -> None:
    """Make a strategy of one's own known. InputError if its name is taken. source: hash of its code."""
    if item.name in _STRATEGIES:
        raise InputError(f"There is already a strategy named {item.name!r}. Give yours another name.")
    _STRATEGIES[item.name] = item
    _SOURCES[item.name] = source


def unregister(name: str) -> None:
    """Forget a strategy that was registered; the shipped ones stay."""
    if _SOURCES.pop(name, None) is not None:
        del _STRATEGIES[name]


def source_of(name: str) -> str:
    """Hash of the code of a strategy of a user's own; empty for a shipped one, whose source the project's own hash covers."""
    return _SOURCES.get(name, "")


def target_weights(
    name: str,
    inputs: pl.DataFrame,
    params: Mapping[str, Any],
    instruments: Mapping[str, Instrument],
    bars: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Weights frame (symbol, open_time, weight) of a strategy: `weigh` without its notes and without neutralisation."""
    return weigh(name, inputs, params, instruments, bars=bars).weights


def weigh(
    name: str,
    inputs: pl.DataFrame,
    params: Mapping[str, Any],
    instruments: Mapping[str, Instrument],
    *,
    bars: pl.DataFrame | None = None,
    neutralise: NeutraliseSpec | None = None,
) -> Weighed:
    """Weights frame (symbol, open_time, weight) of a strategy, and what a person should know of how it came about.

    inputs: predictions (symbol, open_time, prediction) or adjusted bars, whichever `strategy(name).needs`. bars: adjusted bars,
    for a strategy that needs both and for beta; a strategy over bars takes its inputs for them. Raises UnknownNameError for the
    strategy or a parameter, InputError for a wrong value, a missing column or missing bars.
    """
    chosen = strategy(name)
    over_bars = chosen.needs == "bars"
    _require(name, inputs, "bars" if over_bars else "predictions", "close" if over_bars else "prediction")
    seen = inputs if over_bars and bars is None else bars
    parsed = chosen.parse(params)
    if chosen.needs == "both":
        if seen is None:
            raise InputError(f"{name} needs bars beside the predictions.")
        _require(name, seen, "bars", "close")
        made = chosen.weigh(inputs, parsed, instruments, seen)
    else:
        made = chosen.weigh(inputs, parsed, instruments)
    weighed = made if isinstance(made, Weighed) else Weighed(made)
    if neutralise is None:
        return weighed
    weights, notes = neutralised(weighed.weights, neutralise, instruments, seen)
    return Weighed(weights, (*weighed.notes, *notes))


def _require(name: str, frame: pl.DataFrame, what: str, column: str) -> None:
    missing = [needed for needed in ("symbol", "open_time", column) if needed not in frame.columns]
    if missing:
        raise InputError(f"{name} works on {what}; the column {', '.join(missing)} is missing.")
