"""What a function that is declared `by_tail` is given: at each time the newest rows of the symbols, and nothing else.

Research and a session cut the same tails, so they have the same bits, whatever a library makes of longer frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

Indices = NDArray[np.int64]


class Tail(NamedTuple):
    """rows: sorted by symbol and time. time: of the newest of them, for which the function is asked."""

    time: datetime
    rows: pl.DataFrame


def tails(frame: pl.DataFrame, count: int, *, by_slot: bool, newest: int = 0) -> Iterator[Tail]:
    """The tail at each time of `frame`, which is sorted by symbol and time; or at the `newest` times alone.

    count: rows of each symbol, an absent one's last rows too; by_slot: all rows of so many times instead.
    """
    times = frame["open_time"].unique().sort()
    asked, opens = np.arange(len(times))[-newest if newest else 0 :], times.to_physical().to_numpy()
    ends, firsts = _bounds(frame, opens, asked, count, by_slot=by_slot)
    for at, place in enumerate(asked):
        yield Tail(times[int(place)], frame[_rows(firsts[:, at], ends[:, at])])


def differing(whole: pl.DataFrame, alone: pl.DataFrame) -> datetime | None:
    """The first time at which an answer to `alone`, of some times, is another one than in `whole`; None where all agree."""
    import polars as pl

    for time in alone["open_time"].unique().sort():
        there = pl.col("open_time") == time
        if not whole.filter(there).equals(alone.filter(there)):
            return time  # type: ignore[no-any-return]  # of a datetime column
    return None


def _bounds(frame: pl.DataFrame, opens: Indices, asked: Indices, count: int, *, by_slot: bool) -> tuple[Indices, Indices]:
    """Where the rows of each symbol end and begin at each time that is asked for, [symbols, times]."""
    own, lengths = frame["open_time"].to_physical().to_numpy(), frame["symbol"].rle().struct.field("len").to_numpy()
    stops = np.cumsum(lengths, dtype=np.int64)
    starts, oldest = stops - lengths, opens[np.maximum(asked - count + 1, 0)]
    ends = np.empty((len(stops), len(asked)), dtype=np.int64)
    firsts = np.empty_like(ends)
    for at, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        ends[at] = start + np.searchsorted(own[start:stop], opens[asked], side="right")
        firsts[at] = start + np.searchsorted(own[start:stop], oldest) if by_slot else np.maximum(ends[at] - count, start)
    return ends, firsts


def _rows(firsts: Indices, ends: Indices) -> Indices:
    lengths = ends - firsts
    made: Indices = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
    return made
