"""What a strategy is: a name, its parameters with defaults, and a step from predictions and bars to target weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.reading import problem

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Indices = NDArray[np.int64]
    Start = Callable[[Any, "Universe", "Carried | None"], "Stepper"]
    Weigh = Callable[..., "pl.DataFrame | Weighed"]
    Signals = Callable[[Floats, Indices, Any, Floats], Floats]
    Grid = Callable[[Floats, Indices, Sequence[Any], Floats, Callable[[Floats], Floats]], Iterable[Floats]]


class Weighed(NamedTuple):
    """Target weights, and sentences about what was left out, cut or replaced on the way to them."""

    weights: pl.DataFrame
    notes: tuple[str, ...] = ()


class Universe(NamedTuple):
    """symbols: ascending. can_short: [symbols]."""

    symbols: tuple[str, ...]
    can_short: Flags


class Slots(NamedTuple):
    """Slots of a book in order of time, as a strategy sees them at their closes; one of them is a step's.

    number: [slots] which slot of the book's calendar it is, counted from the anchor; below 0 before that. The others are
    [slots, symbols]. own: whether it is a slot of the symbol's own calendar. predicted: whether anything was predicted, be it
    unknown or rejected. prediction: NaN for none that counts. present: whether there is a bar. close: adjusted, NaN for none.
    opens: [slots], epoch microseconds; None where no strategy is told times.
    """

    number: Indices
    own: Flags
    predicted: Flags
    prediction: Floats
    present: Flags
    close: Floats
    opens: Indices | None = None


class Carried(NamedTuple):
    """The state of a step between two slots. by_symbol: arrays whose last axis is `symbols`; whole: the others."""

    symbols: tuple[str, ...]
    by_symbol: Mapping[str, NDArray[Any]]
    whole: Mapping[str, NDArray[Any]] = {}


class Stepper(Protocol):
    """A strategy under way. It goes on from where the scan before ended, so any cut of the slots gives the same weights."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was left out, cut or replaced so far."""

    def scan(self, slots: Slots) -> Floats:
        """Target weights [slots, symbols]: shares of equity, 0 to close, NaN where nothing is asked."""

    def state(self) -> Carried:
        """What `Strategy.start` goes on from, in this process or another."""


def carried(state: Carried | None, name: str, symbols: tuple[str, ...], missing: float, rows: tuple[int, ...] = ()) -> Floats:
    """An array of a state, [*rows, symbols], for other symbols than it was made of; `missing` for those it does not know."""
    import numpy as np

    made = np.full((*rows, len(symbols)), missing)
    if state is not None:
        place = {symbol: at for at, symbol in enumerate(state.symbols)}
        known = [at for at, symbol in enumerate(symbols) if symbol in place]
        made[..., known] = state.by_symbol[name][..., [place[symbols[at]] for at in known]]
    return made


def unasked(slots: Slots) -> Floats:
    """Weights that ask for nothing."""
    import numpy as np

    return np.full(slots.prediction.shape, np.nan)


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy: `start` for one that steps, `weigh` for a function over whole frames; one of the two.

    needs: what it looks at: `predictions`, `bars` (adjusted), or `both`. start(params, universe, state) → `Stepper`. It asks at
    the close of a slot, from what is known there; orders fill at the next open. weigh(frame, params, instruments) → symbol,
    open_time, weight, of predictions (symbol, open_time, prediction) or of bars (sorted by symbol and open_time): the share of
    equity wanted, known at the close of the bar that opened at open_time; 0 closes, no row leaves the position alone. One that
    needs `both` is called weigh(predictions, params, instruments, bars) and may use at each time what bars say up to it, and
    nothing later. A strategy over bars returns exactly one row for each bar, in their order, null where it asks for nothing.
    begin: `start` of a user's own strategy, whose steps run in one process as long as the object lives that is given.
    resize: whether a target may trim or add to a position (see `backtest.backtest`). source: hash of the code of a user's own
    strategy; empty for one that ships.

    signals, grid: the fast doors of a strategy over closes, both optional. signals(close, ends, params, share) gives the
    weights of all bars as an array (NaN for null) for closes that lie symbol after symbol, each ending at `ends`; share is
    that of `equal_shares`, one for each bar, or for each time where every symbol has a bar at every time. grid(close, ends,
    list of params, share, spread) gives spread(signals(…)) for each of many parameters, in order and to the bit; what they
    share is worked out once. spread turns an array over the bars into a panel; share there is one for each row of it.
    """

    name: str
    about: str
    needs: Literal["predictions", "bars", "both"]
    params: type[msgspec.Struct]
    start: Start | None = None
    begin: Callable[[object], Start] | None = None
    weigh: Weigh | None = None
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
            raise InputError(f"A parameter of {self.name} is wrong: {problem(exc, dict(given), self.params)}") from exc


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
