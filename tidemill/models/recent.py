"""The newest feature rows of each symbol: all that models which look back remember, so that they can begin at any slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.intervals import EPOCH, epoch_microseconds

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]
NEVER = -(2**63)


class RecentRows(NamedTuple):
    """values: [rows, symbols, features], oldest first for each symbol. times: [rows, symbols], epoch microseconds."""

    symbols: tuple[str, ...]
    values: Floats
    times: Indices

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        """The rows that there are, sorted by symbol and time: symbol, open_time and a column for each of the values."""
        symbols, rows = np.nonzero(self.times.T != NEVER)
        times = pl.Series("open_time", self.times[rows, symbols]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        names = pl.Series("symbol", self.symbols, dtype=pl.String).gather(symbols)
        values = self.values[rows, symbols].T
        return pl.DataFrame([names, times, *(pl.Series(name, column) for name, column in zip(columns, values, strict=True))])


class Recent:
    """Rows of `symbols`, each as many as `keep` asks for; an absent symbol keeps the ones that it has."""

    def __init__(self, symbols: Sequence[str], features: int, state: RecentRows | None = None) -> None:
        self._symbols = tuple(symbols)
        rows = 0 if state is None else len(state.times)
        # A ring for each symbol: a slot writes one row of each, where moving all of them took 0.1 s of 1,000 symbols.
        self._values = np.full((rows, len(symbols), features), np.nan)
        self._times = np.full((rows, len(symbols)), NEVER, dtype=np.int64)
        self._next = np.zeros(len(symbols), dtype=np.int64)
        for at, symbol in enumerate(state.symbols) if state is not None else ():
            if state is not None and symbol in self._symbols:
                place = self._symbols.index(symbol)
                self._values[:, place], self._times[:, place] = state.values[:, at], state.times[:, at]

    def keep(self, rows: int) -> None:
        """From now on so many rows of each; those that are dropped are the oldest."""
        self._values, self._times = self._in_order()
        self._next[:] = 0
        more = rows - len(self._times)
        if more > 0:
            self._values = np.pad(self._values, ((more, 0), (0, 0), (0, 0)), constant_values=np.nan)
            self._times = np.pad(self._times, ((more, 0), (0, 0)), constant_values=NEVER)
        elif more < 0:
            self._values, self._times = self._values[-more:], self._times[-more:]

    def push(self, values: Floats, present: Flags, open_time: datetime) -> None:
        """The rows of a slot: [symbols, features]."""
        if not len(self._times):
            return
        there = np.flatnonzero(present)
        rows = self._next[there]
        self._values[rows, there], self._times[rows, there] = values[there], epoch_microseconds(open_time)
        self._next[there] = (rows + 1) % len(self._times)

    def _in_order(self) -> tuple[Floats, Indices]:
        """Values and times, oldest first for each symbol."""
        count = len(self._times)
        if not count:
            return self._values, self._times
        rows = (self._next + np.arange(count)[:, None]) % count
        return np.take_along_axis(self._values, rows[:, :, None], axis=0), np.take_along_axis(self._times, rows, axis=0)

    def slots(self) -> Iterator[tuple[Floats, Flags, datetime]]:
        """The rows again, slot by slot in order of time: values [symbols, features], which symbols have one, and when."""
        places, (kept, times) = np.arange(len(self._symbols)), self._in_order()
        for time in np.unique(times[times != NEVER]):
            there = times == time
            present = there.any(axis=0)
            values = np.where(present[:, None], kept[there.argmax(axis=0), places], np.nan)
            yield values, present, EPOCH + timedelta(microseconds=int(time))

    def rows(self, newest: int, of: Flags | None = None) -> RecentRows:
        """The last so many of each. of: [symbols] which symbols' alone."""
        values, times = self._in_order()
        if of is None:
            return RecentRows(self._symbols, values[-newest:], times[-newest:])
        symbols = tuple(name for name, there in zip(self._symbols, of, strict=True) if there)
        return RecentRows(symbols, values[-newest:, of], times[-newest:, of])

    def state(self) -> RecentRows:
        values, times = self._in_order()
        return RecentRows(self._symbols, values.copy(), times.copy())
