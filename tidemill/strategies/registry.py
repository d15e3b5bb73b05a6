"""All strategies by name, and the one door to their weights. One that ships is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.market import Instrument
from tidemill.provenance import fingerprint, source_version
from tidemill.strategies.base import Strategy, Weighed
from tidemill.strategies.neutral import neutralised

if TYPE_CHECKING:
    import polars as pl

# name → the module that holds it as `STRATEGY`. `source_version` of this module does not see those: ask `code_version`.
SHIPPED = {
    "quantile": "tidemill.strategies.quantile",
    "long_only_top_k": "tidemill.strategies.long_only_top_k",
    "inverse_volatility": "tidemill.strategies.inverse_volatility",
    "mean_variance": "tidemill.strategies.mean_variance",
    "sma_cross": "tidemill.strategies.sma_cross",
}
_OWN: dict[str, tuple[Strategy, str]] = {}


def strategies() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted({*SHIPPED, *_OWN}))


def strategy(name: str) -> Strategy:
    """The strategy of that name, else UnknownNameError with the choices."""
    if name in _OWN:
        return _OWN[name][0]
    if name not in SHIPPED:
        raise UnknownNameError("strategy", name, strategies())
    return _shipped(name)


@cache
def _shipped(name: str) -> Strategy:
    made = import_module(SHIPPED[name]).STRATEGY
    assert isinstance(made, Strategy)  # nosec B101  # a wrong table entry is a defect, not input
    return made


def register(item: Strategy, source: str = "") -> None:
    """Make a strategy of one's own known. InputError if its name is taken. source: hash of its code."""
    if item.name in SHIPPED or item.name in _OWN:
        raise InputError(f"There is already a strategy named {item.name!r}. Give yours another name.")
    _OWN[item.name] = item, source


def unregister(name: str) -> None:
    """Forget a strategy that was registered; the shipped ones stay."""
    _OWN.pop(name, None)


def source_of(name: str) -> str:
    """Hash of the code of a strategy of a user's own; empty for a shipped one, whose source the project's own hash covers."""
    return _OWN[name][1] if name in _OWN else ""


def code_version(name: str) -> str:
    """16 hex digits of the source that decides the weights of a strategy, a user's own code included."""
    own = source_version(__name__, SHIPPED.get(name, "tidemill.strategies.custom"))
    return fingerprint(own, source_of(name))[:16]


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
