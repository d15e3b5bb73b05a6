"""Strategies by name, and the one door to their weights. One that ships is loaded when it is asked for.

`Strategies` is a value: the strategies that ship and those of a user's own files beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.intervals import Interval, epoch_microseconds
from tidemill.domain.market import Instrument
from tidemill.provenance import fingerprint, source_version
from tidemill.strategies.base import Strategy, Weighed, closes
from tidemill.strategies.neutral import neutralised
from tidemill.strategies.standing import standing

if TYPE_CHECKING:
    import polars as pl

    from tidemill.strategies.base import Start

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
        modules = [SHIPPED[name]] if name in SHIPPED else ["tidemill.strategies.custom", "tidemill.strategies.by_tail"]
        return fingerprint(source_version(__name__, *modules), self.source(name))[:16]


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
    anchor: datetime | None = None,
    since: datetime | None = None,
    neutralise: NeutraliseSpec | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
) -> Weighed:
    """Weights frame (symbol, open_time, weight) of a strategy, and what a person should know of how it came about.

    inputs: predictions (symbol, open_time, prediction) or adjusted bars, whichever the strategy `needs`; at `interval`. bars:
    adjusted bars, for a strategy that needs both and for beta; a strategy over bars takes its inputs for them. there: symbol
    and open_time of all bars, by default `bars`: they tell the slots of each market, while the market of some symbols is
    closed. anchor: from when the slots of the book are counted; by default from the first prediction. since: from when anything
    is asked; what lies before warms up. known: where the strategy is found.
    Raises UnknownNameError for the strategy or a parameter, InputError for a wrong value, a missing column or missing bars.
    """
    chosen = known.find(name)
    over_bars = chosen.needs == "bars"
    _require(name, inputs, "bars" if over_bars else "predictions", "close" if over_bars else "prediction")
    seen = inputs if over_bars and bars is None else bars
    if chosen.needs == "both":
        if seen is None:
            raise InputError(f"{name} needs bars beside the predictions.")
        if seen.is_empty():
            raise InputError("There are no bars to estimate risk from. Check the symbols and the dates.")
        _require(name, seen, "bars", "close")
    parsed = chosen.parse(params)
    weighed = _weighed(chosen, parsed, inputs, instruments, interval, bars=seen, there=there, anchor=anchor)
    if since is not None:
        weighed = weighed._replace(weights=_from(weighed.weights, since))
    if neutralise is None:
        return weighed
    weights, notes = neutralised(weighed.weights, neutralise, instruments, seen, interval)
    return Weighed(weights, (*weighed.notes, *notes))


def _from(weights: pl.DataFrame, since: datetime) -> pl.DataFrame:
    import polars as pl

    return weights.filter(pl.col("open_time") >= since)


def weights_over_bars(
    chosen: Strategy, params: msgspec.Struct, bars: pl.DataFrame, instruments: Mapping[str, Instrument], interval: Interval
) -> pl.Series:
    """What a strategy over bars asks for at each of them, in their order; parameters as they were parsed."""
    return _weighed(chosen, params, bars, instruments, interval, bars=bars).weights.get_column("weight")


def _weighed(
    chosen: Strategy,
    params: msgspec.Struct,
    inputs: pl.DataFrame,
    instruments: Mapping[str, Instrument],
    interval: Interval,
    *,
    bars: pl.DataFrame | None,
    there: pl.DataFrame | None = None,
    anchor: datetime | None = None,
) -> Weighed:
    if chosen.start is not None:
        return _stepped(chosen.start, chosen.needs, params, inputs, instruments, interval, bars, there, anchor)
    given = inputs if chosen.needs == "bars" else standing(inputs, instruments, interval, bars if there is None else there)
    assert chosen.weigh is not None  # nosec B101  # a strategy is one or the other
    both = (bars,) if chosen.needs == "both" else ()
    made = chosen.weigh(given, params, instruments, *both)
    return made if isinstance(made, Weighed) else Weighed(made)


def _stepped(
    start: Start,
    needs: str,
    params: msgspec.Struct,
    inputs: pl.DataFrame,
    instruments: Mapping[str, Instrument],
    interval: Interval,
    bars: pl.DataFrame | None,
    there: pl.DataFrame | None,
    anchor: datetime | None,
) -> Weighed:
    """The weights of a strategy that steps, scanned over all slots."""
    import polars as pl

    from tidemill.strategies.slots import asked_frame, book_slots, frame_of_bars

    if inputs.is_empty():
        return Weighed(inputs.select("symbol", "open_time", weight=pl.lit(None, pl.Float64)))
    over_bars = needs == "bars"
    if over_bars:
        closes(inputs)  # refuses what is not sorted, as the fast doors do
    predictions, seen = (None, inputs) if over_bars else (inputs, bars if needs == "both" else None)
    others = None if over_bars else bars if there is None else there
    since = None if anchor is None else epoch_microseconds(anchor)
    axes, universe, slots = book_slots(predictions, seen, others, instruments, interval, since)
    stepper = start(params, universe, None)
    weights = stepper.scan(slots)
    return Weighed(frame_of_bars(weights, inputs, axes) if over_bars else asked_frame(weights, axes), stepper.notes)


def _require(name: str, frame: pl.DataFrame, what: str, column: str) -> None:
    missing = [needed for needed in ("symbol", "open_time", column) if needed not in frame.columns]
    if missing:
        raise InputError(f"{name} works on {what}; the column {', '.join(missing)} is missing.")
