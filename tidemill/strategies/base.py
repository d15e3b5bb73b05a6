"""What a strategy is: a name, its parameters with defaults, and a function from predictions and bars to target weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.reading import told

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]
    Weigh = Callable[..., "pl.DataFrame | Weighed"]
    Signals = Callable[[Floats, Indices, Any, Floats], Floats]
    Grid = Callable[[Floats, Indices, Sequence[Any], Floats, Callable[[Floats], Floats]], Iterable[Floats]]


class Weighed(NamedTuple):
    """Target weights, and sentences about what was left out, cut or replaced on the way to them."""

    weights: pl.DataFrame
    notes: tuple[str, ...] = ()


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy.

    needs: what `weigh` takes: `predictions` (symbol, open_time, prediction), `bars` (adjusted, sorted by symbol and
    open_time), or `both`. weigh(frame, params, instruments) → symbol, open_time, weight: the share of equity wanted,
    known at the close of the bar that opened at open_time; 0 closes, no row leaves the position alone. It may answer
    `Weighed` to add notes. One that needs `both` is called weigh(predictions, params, instruments, bars) and may use
    at each time what bars say up to it, and nothing later. A strategy over bars returns exactly one row for each bar,
    in their order, null where it asks for nothing. resize: whether a target may trim or add to a position (see
    `backtest.backtest`). source: hash of the code of a user's own strategy; empty for one that ships.

    signals, grid: the fast doors of a strategy over closes, both optional. signals(close, ends, params, share) gives the
    weights of `weigh` as an array (NaN for null) for closes that lie symbol after symbol, each ending at `ends`; share is
    that of `equal_shares`, one for each bar, or for each time where every symbol has a bar at every time. grid(close, ends,
    list of params, share, spread) gives spread(signals(…)) for each of many parameters, in order and to the bit; what they
    share is worked out once. spread turns an array over the bars into a panel; share there is one for each row of it.
    """

    name: str
    about: str
    needs: Literal["predictions", "bars", "both"]
    params: type[msgspec.Struct]
    weigh: Weigh
    resize: bool = True
    source: str = ""
    signals: Signals | None = None
    grid: Grid | None = None

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
            raise InputError(f"A parameter of {self.name} is wrong: {told(exc, dict(given), self.params)}") from exc


def require(fine: bool, text: str) -> None:
    """For `__post_init__` of parameters: ValueError, which `Strategy.parse` turns into an InputError."""
    if not fine:
        raise ValueError(text)


def closes(bars: pl.DataFrame) -> tuple[Floats, Indices]:
    """Closes of all symbols one after the other, and where each stops. InputError unless sorted by symbol."""
    import numpy as np
    import polars as pl

    runs = bars.get_column("symbol").rle().struct.unnest()
    if runs.get_column("value").n_unique() != runs.height:
        raise InputError("Bars must be sorted by symbol and open_time.")
    close = bars.get_column("close").cast(pl.Float64).to_numpy()
    return np.ascontiguousarray(close), np.cumsum(runs.get_column("len").to_numpy(), dtype=np.int64)


def equal_shares(first: Indices, at: Indices) -> Floats:
    """1 / symbols that have had a bar by then, for each time of `at`; first: time of the first bar of each symbol.

    Who is listed later is not known yet, so the panel as a whole decides nothing. One that is gone keeps its share in cash.
    """
    import numpy as np

    return 1.0 / np.searchsorted(np.sort(first), at, side="right")
