"""Strategies by name, and the one door to their weights. One that ships is loaded when it is asked for.

`Strategies` is a value: the strategies that ship and those of a user's own files beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.provenance import fingerprint, source_version
from tidemill.strategies.base import Strategy, Weighed
from tidemill.strategies.neutral import neutralised
from tidemill.strategies.standing import standing

if TYPE_CHECKING:
    import polars as pl

# name → the module that holds it as `STRATEGY`. `source_version` of this module does not see those: ask `Strategies`.
SHIPPED = {
    "quantile": "tidemill.strategies.quantile",
    "long_only_top_k": "tidemill.strategies.long_only_top_k",
    "inverse_volatility": "tidemill.strategies.inverse_volatility",
    "mean_variance": "tidemill.strategies.mean_variance",
    "sma_cross": "tidemill.strategies.sma_cross",
}


class Strategies(msgspec.Struct, frozen=True):
    """own: strategies of a user's files by name; they go beside those that ship."""

    own: Mapping[str, Strategy] = {}

    def names(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted({*SHIPPED, *self.own}))

    def find(self, name: str) -> Strategy:
        """The strategy of that name, else UnknownNameError with the choices."""
        if name in self.own:
            return self.own[name]
        if name not in SHIPPED:
            raise UnknownNameError("strategy", name, self.names())
        return _shipped(name)

    def source(self, name: str) -> str:
        """Hash of the code of a user's own strategy; empty for a shipped one, whose source the project's own hash covers."""
        return self.own[name].source if name in self.own else ""

    def code_version(self, name: str) -> str:
        """16 hex digits of the source that decides the weights of a strategy, a user's own code included."""
        own = source_version(__name__, SHIPPED.get(name, "tidemill.strategies.custom"))
        return fingerprint(own, self.source(name))[:16]


SHIPPED_STRATEGIES = Strategies()


def strategy(name: str) -> Strategy:
    """The strategy that ships under that name, else UnknownNameError with the choices."""
    return SHIPPED_STRATEGIES.find(name)


@cache
def _shipped(name: str) -> Strategy:
    made = import_module(SHIPPED[name]).STRATEGY
    assert isinstance(made, Strategy)  # nosec B101  # a wrong table entry is a defect, not input
    return made


def require_free(name: str) -> None:
    """InputError when a strategy that ships has this name."""
    if name in SHIPPED:
        raise InputError(f"There is already a strategy named {name!r}. Choose another name.")


def weigh(
    name: str,
    inputs: pl.DataFrame,
    params: Mapping[str, Any],
    instruments: Mapping[str, Instrument],
    interval: Interval,
    *,
    bars: pl.DataFrame | None = None,
    there: pl.DataFrame | None = None,
    neutralise: NeutraliseSpec | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
) -> Weighed:
    """Weights frame (symbol, open_time, weight) of a strategy, and what a person should know of how it came about.

    inputs: predictions (symbol, open_time, prediction) or adjusted bars, whichever the strategy `needs`; at `interval`. While
    the market of some symbols is closed, their newest predictions stand (`strategies.standing`; there: symbol and open_time of
    all bars, by default `bars`). bars: adjusted bars, for a strategy that needs both and for beta; a strategy over bars takes
    its inputs for them. known: where the strategy is found.
    Raises UnknownNameError for the strategy or a parameter, InputError for a wrong value, a missing column or missing bars.
    """
    chosen = known.find(name)
    over_bars = chosen.needs == "bars"
    _require(name, inputs, "bars" if over_bars else "predictions", "close" if over_bars else "prediction")
    seen = inputs if over_bars and bars is None else bars
    parsed = chosen.parse(params)
    given = inputs if over_bars else standing(inputs, instruments, interval, seen if there is None else there)
    if chosen.needs == "both":
        if seen is None:
            raise InputError(f"{name} needs bars beside the predictions.")
        _require(name, seen, "bars", "close")
        made = chosen.weigh(given, parsed, instruments, seen)
    else:
        made = chosen.weigh(given, parsed, instruments)
    weighed = made if isinstance(made, Weighed) else Weighed(made)
    if neutralise is None:
        return weighed
    weights, notes = neutralised(weighed.weights, neutralise, instruments, seen)
    return Weighed(weights, (*weighed.notes, *notes))


def _require(name: str, frame: pl.DataFrame, what: str, column: str) -> None:
    missing = [needed for needed in ("symbol", "open_time", column) if needed not in frame.columns]
    if missing:
        raise InputError(f"{name} works on {what}; the column {', '.join(missing)} is missing.")
