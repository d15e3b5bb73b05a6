"""Frames of predictions and bars as the slots of a book, and weights of those slots as a frame again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.calendars import epochs, own_slots, slot_numbers
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Slots, Universe

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

_UNKNOWN = ""  # calendar of a symbol without an instrument: every slot of the book is one of its own


class Axes(NamedTuple):
    """times: ascending, of the type of the frames. opens: the same in epoch microseconds. symbols ascend."""

    times: pl.Series
    opens: Indices
    symbols: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.opens), len(self.symbols)

    def cells(self, frame: pl.DataFrame) -> Indices:
        """Place of each row of symbol, open_time in a raveled [times, symbols]; all of them must be on the axes."""
        import polars as pl

        codes = frame["symbol"].cast(pl.Enum(self.symbols)).to_physical().to_numpy().astype(np.int64)
        return np.searchsorted(self.opens, epochs(frame["open_time"])) * len(self.symbols) + codes

    def panel(self, cells: Indices, values: pl.Series) -> Floats:
        """[times, symbols], NaN where there is no value."""
        import polars as pl

        made = np.full(self.shape, np.nan)
        made.reshape(-1)[cells] = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return made

    def flags(self, cells: Indices, what: str) -> Flags:
        """[times, symbols]: whether there is a row. InputError where two rows claim one place."""
        made = np.zeros(self.shape, dtype=np.bool_)
        made.reshape(-1)[cells] = True
        if np.count_nonzero(made) != len(cells):
            raise InputError(f"The {what} hold the same symbol and time more than once. Keep one row of each.")
        return made


class BookSlots(NamedTuple):
    """All slots of a book, and what its strategy sees in them."""

    axes: Axes
    universe: Universe
    slots: Slots


def book_slots(
    predictions: pl.DataFrame | None,
    bars: pl.DataFrame | None,
    there: pl.DataFrame | None,
    instruments: Mapping[str, Instrument],
    interval: Interval,
    anchor: int | None,
) -> BookSlots:
    """The slots of predictions (symbol, open_time, prediction), of adjusted bars beside them, or of either alone.

    there: symbol, open_time of what has a bar, where `bars` do not tell. The universe is all symbols of any of them.
    anchor: epoch microseconds from which the slots of the book are counted; None: the first prediction, else the first bar.
    """
    frames = [frame for frame in (predictions, bars, there) if frame is not None]
    axes = _axes(frames)
    nowhere = np.zeros(0, dtype=np.int64)
    told = nowhere if predictions is None else axes.cells(predictions)
    traded = nowhere if bars is None else axes.cells(bars)
    present, predicted = axes.flags(traded, "bars"), axes.flags(told, "predictions")
    group = _groups(axes.symbols, instruments)
    held = _held(axes, group, frames)
    start = anchor if anchor is not None else int(epochs(frames[0]["open_time"]).min())
    slots = Slots(
        number=slot_numbers(interval, axes.opens, {name: own for name, own in held.items() if name != _UNKNOWN}, start),
        own=_own(axes, group, held, interval),
        predicted=predicted,
        prediction=axes.panel(told, predictions["prediction"]) if predictions is not None else axes.panel(told, _none()),
        present=present,
        close=axes.panel(traded, bars["close"]) if bars is not None else axes.panel(traded, _none()),
        opens=axes.opens,
    )
    can_short = np.array([symbol in instruments and instruments[symbol].can_short for symbol in axes.symbols], dtype=np.bool_)
    return BookSlots(axes, Universe(axes.symbols, can_short), slots)


def asked_frame(weights: Floats, axes: Axes) -> pl.DataFrame:
    """symbol, open_time, weight of what is asked for, by time and symbol."""
    return _frame(weights, axes, ~np.isnan(weights))


def frame_of_bars(weights: Floats, bars: pl.DataFrame, axes: Axes) -> pl.DataFrame:
    """symbol, open_time, weight of each of `bars`, in their order; null where nothing is asked."""
    import polars as pl

    values = pl.Series("weight", weights.reshape(-1)[axes.cells(bars)])
    return bars.select("symbol", "open_time").with_columns(values.fill_nan(None))


def _frame(weights: Floats, axes: Axes, chosen: Flags) -> pl.DataFrame:
    import polars as pl

    rows, columns = np.nonzero(chosen)
    names = pl.Series("symbol", axes.symbols, dtype=pl.String)
    return pl.DataFrame([
        names.gather(columns),
        axes.times.gather(rows).alias("open_time"),
        pl.Series("weight", weights[rows, columns], dtype=pl.Float64),
    ])  # fmt: skip


def _axes(given: list[pl.DataFrame]) -> Axes:
    import polars as pl

    kind = given[0].schema["open_time"]
    times = pl.concat([frame["open_time"].unique().cast(kind) for frame in given]).unique().sort()
    symbols = pl.concat([frame["symbol"].unique().cast(pl.String) for frame in given]).unique().sort()
    return Axes(times, epochs(times), tuple(symbols))


def _groups(symbols: tuple[str, ...], instruments: Mapping[str, Instrument]) -> dict[str, list[int]]:
    """Calendar → places of the symbols that follow it."""
    group: dict[str, list[int]] = {}
    for at, symbol in enumerate(symbols):
        name = instruments[symbol].calendar if symbol in instruments else _UNKNOWN
        group.setdefault(name, []).append(at)
    return group


def _held(axes: Axes, group: Mapping[str, list[int]], frames: list[pl.DataFrame]) -> dict[str, Flags]:
    """Calendar → whether any symbol that follows it has a row at each time."""
    import polars as pl

    if len(group) == 1:
        return {name: np.ones(len(axes.opens), dtype=np.bool_) for name in group}
    found = {name: np.zeros(len(axes.opens), dtype=np.bool_) for name in group}
    for frame in frames:
        for name, places in group.items():
            own = frame.filter(pl.col("symbol").is_in([axes.symbols[at] for at in places]))
            found[name][np.searchsorted(axes.opens, epochs(own["open_time"].unique()))] = True
    return found


def _own(axes: Axes, group: Mapping[str, list[int]], held: Mapping[str, Flags], interval: Interval) -> Flags:
    made = np.ones(axes.shape, dtype=np.bool_)
    for name, places in group.items() if len(group) > 1 else ():
        if name != _UNKNOWN:
            made[:, places] = own_slots(name, interval, axes.opens, held[name])[:, None]
    return made


def _none() -> pl.Series:
    import polars as pl

    return pl.Series([], dtype=pl.Float64)
