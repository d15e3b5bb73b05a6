"""What a strategy is: a name, its parameters with defaults, and a function from predictions or bars to target weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.market import Instrument

if TYPE_CHECKING:
    import polars as pl

    Weigh = Callable[[pl.DataFrame, Any, Mapping[str, Instrument]], pl.DataFrame]


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy.

    needs: what `weigh` takes: `predictions` (symbol, open_time, prediction) or `bars` (adjusted, sorted by symbol and
    open_time). weigh(frame, params, instruments) → symbol, open_time, weight: the share of equity wanted, known at
    the close of the bar that opened at open_time; 0 closes, no row leaves the position alone. A strategy over bars
    returns exactly one row for each bar, in their order, null where it asks for nothing. resize: whether a target may
    trim or add to a position (see `engine.backtest`).
    """

    name: str
    about: str
    needs: Literal["predictions", "bars"]
    params: type[msgspec.Struct]
    weigh: Weigh
    resize: bool = True

    def parse(self, given: Mapping[str, Any]) -> msgspec.Struct:
        """The parameters with `given` over the defaults; texts are read as what the parameter is. InputError for a
        wrong one.
        """
        for key in given:
            if key not in self.params.__struct_fields__:
                raise UnknownNameError(f"parameter of {self.name}", key, self.params.__struct_fields__)
        try:
            return msgspec.convert(dict(given), self.params, strict=False)
        except msgspec.ValidationError as exc:
            raise InputError(f"A parameter of {self.name} is wrong: {exc}.") from exc


def require(fine: bool, text: str) -> None:
    """For `__post_init__` of parameters: ValueError, which `Strategy.parse` turns into an InputError."""
    if not fine:
        raise ValueError(text)
