"""Frames of bars and weights as dense panels [slots, symbols], the shape in which the kernel scans them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.matching.rules import Floats
from tidemill.strategies.base import equal_shares

if TYPE_CHECKING:
    import polars as pl

Indices = NDArray[np.int64]
_MOST_GRID_CELLS = 20_000_000


class Axes(NamedTuple):
    """The axes: slots are the times at which any symbol has a bar (epoch microseconds, ascending), symbols ascend."""

    times: Indices
    symbols: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.times), len(self.symbols)


class Panel(NamedTuple):
    """Raw bars; float64 [slots, symbols], NaN where a symbol has no bar or a price is missing."""

    axes: Axes
    open: Floats
    close: Floats
    volume: Floats
    flat: Indices | None  # of each row of the frame, its cell in the raveled panel; None: see `regular`

    @property
    def regular(self) -> bool:
        """Whether the frame held every symbol at every time, sorted by symbol and time: rows then need no places."""
        return self.flat is None

    def spread(self, values: pl.Series | Floats) -> Floats:
        """A panel of one value for each row of the bars frame, in its order."""
        numbers = values if isinstance(values, np.ndarray) else _numbers(values)
        return _turned(numbers, self.axes.shape) if self.flat is None else _scatter(self.flat, numbers, self.axes.shape)

    def shares(self, ends: Indices) -> Floats:
        """`equal_shares` in each slot. ends: where each symbol's rows stop in a frame that is sorted by symbol and time."""
        slots, symbols = self.axes.shape
        first = np.zeros(symbols, np.int64) if self.flat is None else self.flat[np.append(0, ends[:-1])] // symbols
        return equal_shares(first, np.arange(slots))

    def of_bars(self, values: Floats) -> Floats:
        """One of `values` [slots] for each row of the bars frame; `values` themselves where `regular`, to be repeated."""
        return values if self.flat is None else values[self.flat // len(self.axes.symbols)]


def microseconds(series: pl.Series, what: str) -> Indices:
    """Epoch microseconds of a Date or Datetime column; a naive time is taken as UTC. InputError for anything else or a null."""
    import polars as pl

    if series.dtype != pl.Date and not isinstance(series.dtype, pl.Datetime):
        raise InputError(f"The times of {what} must be dates or times, not {series.dtype}.")
    if series.null_count():
        raise InputError(f"{what.capitalize()} hold rows without a time. Remove them or fill it in.")
    return series.cast(pl.Datetime("us")).to_physical().cast(pl.Int64).to_numpy()


def require_columns(frame: pl.DataFrame, columns: tuple[str, ...], what: str) -> None:
    """InputError that names what is missing."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"The columns {', '.join(missing)} are missing from the {what}; it needs {', '.join(columns)}.")


def _runs(column: pl.Series) -> tuple[list[str], Indices]:
    """Symbols of the rows, with how many rows follow one another under each."""
    import polars as pl

    if column.null_count():
        raise InputError("Some rows have no symbol. Remove them or fill it in.")
    runs = column.cast(pl.String).rle().struct.unnest()
    return runs.get_column("value").to_list(), runs.get_column("len").cast(pl.Int64).to_numpy()


def _codes(values: list[str], lengths: Indices, symbols: tuple[str, ...] | None) -> tuple[Indices, tuple[str, ...]]:
    """Index of each row's symbol among `symbols` (None: those of the column, sorted)."""
    names = tuple(sorted(set(values))) if symbols is None else symbols
    position = {name: at for at, name in enumerate(names)}
    unknown = next((name for name in values if name not in position), None)
    if unknown is not None:
        raise UnknownNameError("symbol with bars", unknown, names)
    codes = np.array([position[name] for name in values], dtype=np.int64)
    return np.repeat(codes, lengths), names


def _slots(times: Indices, interval: Interval) -> tuple[Indices, Indices]:
    """Distinct times in order, and the index of each row among them. A grid makes it linear; times off the grid are sorted."""
    first, last = int(times.min()), int(times.max())
    past = times - first
    # Integer division costs ten times as much; the product is exact up to 285 years and is checked below.
    offset = np.rint(past * (1.0 / interval.microseconds)).astype(np.int64)
    if (last - first) // interval.microseconds > _MOST_GRID_CELLS or (offset * interval.microseconds != past).any():
        distinct, rows = np.unique(times, return_inverse=True)
        return distinct, rows.astype(np.int64)
    used = np.zeros((last - first) // interval.microseconds + 1, dtype=np.bool_)
    used[offset] = True
    number = np.cumsum(used) - 1
    return first + np.flatnonzero(used) * interval.microseconds, number[offset]


def _flat(rows: Indices, codes: Indices, axes: Axes, what: str) -> Indices:
    """Positions in the raveled panel; InputError where two rows claim the same."""
    slots, symbols = axes.shape
    flat = rows * symbols + codes
    taken = np.zeros(slots * symbols, dtype=np.bool_)
    taken[flat] = True
    if int(taken.sum()) != len(flat):
        raise InputError(f"The {what} hold the same symbol and time more than once. Keep one row of each.")
    return flat


def _numbers(values: pl.Series) -> Floats:
    import polars as pl

    return values.cast(pl.Float64).to_numpy()


def _scatter(flat: Indices, values: Floats, shape: tuple[int, int]) -> Floats:
    panel = np.full(shape[0] * shape[1], np.nan)
    panel[flat] = values
    return panel.reshape(shape)


def _turned(values: Floats, shape: tuple[int, int]) -> Floats:
    return np.ascontiguousarray(values.reshape(shape[1], shape[0]).T)


def _regular(names: list[str], lengths: Indices, times: Indices) -> Axes | None:
    """The axes, where the rows hold every symbol once, in order, each at the same ascending times; else None."""
    slots = int(lengths[0])
    if (lengths != slots).any() or any(earlier >= later for earlier, later in pairwise(names)):
        return None
    first = times[:slots]
    if (first[1:] <= first[:-1]).any() or (times.reshape(len(names), slots) != first).any():
        return None
    return Axes(first.copy(), tuple(names))


def column(bars: pl.DataFrame, name: str) -> Floats:
    """A column as contiguous float64, NaN where it is null."""
    return np.ascontiguousarray(_numbers(bars.get_column(name)))


def bars_panel(bars: pl.DataFrame, interval: Interval) -> Panel:
    """The panel of a bars frame in any row order. InputError when it is empty, lacks a column or holds a bar twice."""
    require_columns(bars, ("symbol", "open_time", "open", "close", "volume"), "bars")
    if bars.is_empty():
        raise InputError("There are no bars to run over. Check the symbols and the dates.")
    names, lengths = _runs(bars.get_column("symbol"))
    times = microseconds(bars.get_column("open_time"), "the bars")
    opened, closed, volume = (_numbers(bars.get_column(name)) for name in ("open", "close", "volume"))
    regular = _regular(names, lengths, times)
    if regular is not None:
        shape = regular.shape
        return Panel(regular, _turned(opened, shape), _turned(closed, shape), _turned(volume, shape), None)
    codes, symbols = _codes(names, lengths, None)
    distinct, rows = _slots(times, interval)
    axes = Axes(distinct, symbols)
    flat = _flat(rows, codes, axes, "bars")
    shape = axes.shape
    return Panel(axes, _scatter(flat, opened, shape), _scatter(flat, closed, shape), _scatter(flat, volume, shape), flat)


def weights_panel(weights: pl.DataFrame, axes: Axes) -> tuple[Floats, int]:
    """Targets on the axes given, and how many rows stood at a time without any bar (they are left out).

    Null and NaN weights ask for nothing. InputError for an infinite weight, an unknown symbol, a repeated row, or
    when no row fits a bar.
    """
    require_columns(weights, ("symbol", "open_time", "weight"), "weights")
    targets = np.full(axes.shape, np.nan)
    if weights.is_empty():
        return targets, 0
    times = microseconds(weights.get_column("open_time"), "the weights")
    rows = np.searchsorted(axes.times, times)
    fits = axes.times[np.minimum(rows, len(axes.times) - 1)] == times
    if not fits.any():
        raise InputError(
            "No weight has the time of a bar. Give each weight the open_time of the bar at whose close it is known."
        )
    kept = weights if fits.all() else weights.filter(fits)
    codes, _ = _codes(*_runs(kept.get_column("symbol")), axes.symbols)
    flat = _flat(rows[fits], codes, axes, "weights")
    targets = _scatter(flat, _numbers(kept.get_column("weight")), axes.shape)
    if np.isinf(targets).any():
        raise InputError("A weight is infinite. Weights are shares of equity, such as 0.1.")
    return targets, int(len(fits) - fits.sum())
