"""When instruments trade: the one place that answers for a calendar. What it is asked: its slots in a range, the next slot
after a time, its closed days, its periods a year. A further calendar is one more row of `_KNOWN`.

A slot is an open time at which a bar is expected. Every instrument states the name of its calendar. polars and
`exchange_calendars`, whose sessions take 0.7 s once a process, are loaded only when something is asked that needs them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from tidemill.domain.errors import UnknownNameError
from tidemill.domain.intervals import Interval, epoch_microseconds

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

ALWAYS, XNYS = "24/7", "XNYS"
NEVER = 2**63 - 1  # of a slot beyond all that a calendar knows
# A name for all symbols, or the name of each; a symbol without one has no closed day.
Followed = str | Mapping[str, str]

_DAY = 86_400
# New York's banks were closed for ten days in March 1933.
LONGEST_CLOSED = timedelta(days=30)
_FIRST, _LAST = date(1885, 1, 1), date(2060, 12, 31)
_YEAR = 365 * _DAY


class Calendar(ABC):
    """When a market trades, at the interval that is asked about.

    name: as instruments state it. stocks: what follows it is taken for a stock, which can be borrowed. never_closes: a slot at
    which no symbol has a bar is missing all the same; elsewhere nobody was there.
    """

    name: str
    stocks: bool
    never_closes: bool

    def slots(self, interval: Interval, start: datetime, end: datetime) -> pl.Series:
        """Slots with start ≤ slot < end, ascending, Datetime("us", "UTC"). Weeks: the Mondays of the grid."""
        import polars as pl

        found = self._slots(interval, epoch_microseconds(start), epoch_microseconds(end))
        return pl.Series("open_time", found).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")

    def next_slots(self, interval: Interval, times: Integers) -> Integers:
        """The first slot at or after each of the `times`, epoch microseconds both; NEVER where none is known."""
        import numpy as np

        if not times.size:
            return times
        until = int(times.max()) + LONGEST_CLOSED // timedelta(microseconds=1) + 2 * interval.microseconds
        known = self._slots(interval, int(times.min()), until)
        return np.append(known, NEVER)[np.searchsorted(known, times)]

    @abstractmethod
    def periods_per_year(self, interval: Interval) -> float:
        """Slots in a year, as returns are annualised."""

    @abstractmethod
    def day(self, interval: Interval) -> pl.Expr:
        """The trading day of `open_time`."""

    @abstractmethod
    def off_grid(self, interval: Interval) -> pl.Expr:
        """Whether no bar opens at `open_time` on any day, whichever of its days are closed."""

    @abstractmethod
    def closed_days(self, days: pl.Series) -> pl.Series:
        """Those of `days` (dtype Date) on which nothing trades; days of which nothing is known are not judged."""

    @abstractmethod
    def _slots(self, interval: Interval, start: int, end: int) -> Integers:
        """Slots in epoch microseconds with start ≤ slot < end."""


@dataclass(frozen=True)
class _Clock(Calendar):
    """Trading that never stops: every slot of the interval's grid."""

    name: str
    stocks: bool = False
    never_closes: bool = True

    def next_slots(self, interval: Interval, times: Integers) -> Integers:
        past = (times - interval.origin_microseconds) % interval.microseconds
        return times + (-past) % interval.microseconds

    def periods_per_year(self, interval: Interval) -> float:
        return _weeks(interval) or 365.0 * _DAY / interval.seconds

    def day(self, interval: Interval) -> pl.Expr:
        import polars as pl

        del interval  # its days are those of UTC
        return pl.col("open_time").dt.date()

    def off_grid(self, interval: Interval) -> pl.Expr:
        return _off_the_clock(interval)

    def closed_days(self, days: pl.Series) -> pl.Series:
        return days.clear()

    def _slots(self, interval: Interval, start: int, end: int) -> Integers:
        return _grid(interval, start, end)


class _Hours(NamedTuple):
    """Sessions of an exchange: days (dtype Date), and when each opens and closes, early closes too (epoch microseconds)."""

    days: pl.Series
    opens: Integers
    closes: Integers


@dataclass(frozen=True)
class _Exchange(Calendar):
    """A stock exchange that `exchange_calendars` knows by this name, from 1885 to 2060.

    opens: minutes after midnight there; a year has `days` sessions of `hours`.
    """

    name: str
    zone: str
    opens: int
    hours: float
    days: float
    stocks: bool = True
    never_closes: bool = False

    def periods_per_year(self, interval: Interval) -> float:
        if interval.seconds >= _DAY:
            return _weeks(interval) or self.days * _DAY / interval.seconds
        return self.days * max(self.hours * 3_600.0 / interval.seconds, 1.0)

    def day(self, interval: Interval) -> pl.Expr:
        import polars as pl

        time = pl.col("open_time")
        return (time.dt.convert_time_zone(self.zone) if interval.seconds < _DAY else time).dt.date()

    def off_grid(self, interval: Interval) -> pl.Expr:
        """Off the clock's grid and, within a day, also off the grid that starts with the session."""
        import polars as pl

        off = _off_the_clock(interval)
        if interval.seconds >= _DAY:
            return off
        local = pl.col("open_time").dt.convert_time_zone(self.zone).dt.replace_time_zone(None).to_physical()
        return off & ((local - self.opens * 60_000_000) % interval.microseconds != 0)

    def closed_days(self, days: pl.Series) -> pl.Series:
        known = days.drop_nulls()
        judged = known.filter((known >= _FIRST) & (known <= _LAST))
        return judged.filter(~judged.is_in(_hours(self.name).days.implode()))

    def _slots(self, interval: Interval, start: int, end: int) -> Integers:
        if interval.seconds > _DAY:
            return _grid(interval, start, end)
        if interval.seconds < _DAY:
            return _inside(_hours(self.name), interval, start, end)
        days = _midnights(self.name)
        return days[(days >= start) & (days < end)]


@lru_cache(maxsize=8)
def _hours(name: str) -> _Hours:
    import warnings

    import exchange_calendars
    import polars as pl

    with warnings.catch_warnings():
        # exchange_calendars 4.13 reads zoned columns in a way that pandas 3.1 deprecates; the values are right.
        warnings.filterwarnings("ignore", message="Series.values returning", category=DeprecationWarning)
        known = exchange_calendars.get_calendar(name, start=_FIRST.isoformat(), end=_LAST.isoformat())
        opens, closes = (times.to_numpy("datetime64[us]").astype("int64") for times in (known.opens, known.closes))
    return _Hours(pl.Series("day", known.sessions.to_numpy()).cast(pl.Date), opens, closes)


@lru_cache(maxsize=8)
def _midnights(name: str) -> Integers:
    import polars as pl

    found: Integers = _hours(name).days.cast(pl.Datetime("us")).to_physical().to_numpy()
    return found


def _inside(hours: _Hours, interval: Interval, start: int, end: int) -> Integers:
    """Slots of all sessions that touch the range, cut to it."""
    import numpy as np

    length = interval.microseconds
    first, last = np.searchsorted(hours.closes, start, side="right"), np.searchsorted(hours.opens, end)
    opens, closes = hours.opens[first:last], hours.closes[first:last]
    counts = -((opens - closes) // length)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    made: Integers = np.repeat(opens, counts) + nth * length
    return made[(made >= start) & (made < end)]


def _grid(interval: Interval, start: int, end: int) -> Integers:
    import numpy as np

    first = start + (interval.origin_microseconds - start) % interval.microseconds
    return np.arange(first, max(end, first), interval.microseconds, dtype=np.int64)


def _off_the_clock(interval: Interval) -> pl.Expr:
    import polars as pl

    return (pl.col("open_time").to_physical() - interval.origin_microseconds) % interval.microseconds != 0


def _weeks(interval: Interval) -> float | None:
    """Periods in a year of 52 weeks; None for bars shorter than a week."""
    return 52.0 * 7 * _DAY / interval.seconds if interval.seconds >= 7 * _DAY else None


_KNOWN: dict[str, Calendar] = {
    ALWAYS: _Clock(ALWAYS),
    XNYS: _Exchange(XNYS, zone="America/New_York", opens=9 * 60 + 30, hours=6.5, days=252.0),
}
NAMES = tuple(_KNOWN)


def calendar_named(name: str) -> Calendar:
    """The calendar of that name; UnknownNameError for any other."""
    if name not in _KNOWN:
        raise UnknownNameError("calendar", name, NAMES)
    return _KNOWN[name]


def by_calendar(symbols: Iterable[str], followed: Followed) -> dict[str, list[str]]:
    """Name of a calendar → those of `symbols` that follow it."""
    if isinstance(followed, str):
        return {followed: list(symbols)}
    groups: dict[str, list[str]] = {}
    for symbol in symbols:
        groups.setdefault(followed.get(symbol, ALWAYS), []).append(symbol)
    return groups


def own_slots(name: str, interval: Interval, opens: Integers, held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each slot of a panel is one of this calendar's own: where it says so or a symbol that follows it has a bar.

    opens: epoch microseconds, ascending. held: whether any such symbol has a bar there. While most of their bars up to a slot
    were stamped otherwise than the calendar expects, such as at midnight in New York, they alone tell.
    """
    import numpy as np

    expected = np.asarray(calendar_named(name).next_slots(interval, opens) == opens, dtype=np.bool_)
    return np.asarray(held | (expected & _stamped_so(held, expected)), dtype=np.bool_)


def slot_numbers(interval: Interval, opens: Integers, held: Mapping[str, NDArray[np.bool_]], anchor: int) -> Integers:
    """Which slot of a book's calendar each of `opens` is, counted from `anchor`; below 0 before it. Epoch microseconds.

    A book's calendar is the union of those of its instruments, each from the first bar of any that follows it, and every time
    at which there is a bar. A slot counts whether or not anything is there, so a gap that is filled later moves no number. One
    that is there from the first of `opens` on was there before.
    held: calendar → whether any such symbol has a bar at each of `opens`, ascending.
    """
    import numpy as np

    found, start, until = [opens], min(int(opens[0]), anchor), int(opens[-1]) + 1
    for name, there in held.items():
        if there.any():
            expected, first = calendar_named(name)._slots(interval, start, until), opens[np.argmax(there)]
            late = ((expected >= opens[0]) & (expected < first)).any()
            newest = np.maximum(np.searchsorted(opens, expected, side="right") - 1, 0)
            counts = _stamped_so(there, np.isin(opens, expected))[newest] & ~(late & (expected < first))
            found.append(expected[counts])
    slots = np.unique(np.concatenate(found))
    return np.searchsorted(slots, opens) - np.searchsorted(slots, anchor)


def _stamped_so(held: NDArray[np.bool_], expected: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether at least half of the bars of a calendar were stamped as it expects, up to each slot."""
    import numpy as np

    return np.asarray(2 * np.cumsum(held & expected) >= np.cumsum(held), dtype=np.bool_)


def epochs(times: pl.Series) -> Integers:
    """Epoch microseconds of a column of times."""
    import polars as pl

    made: Integers = times.cast(pl.Datetime("us")).to_physical().to_numpy()
    return made


def periods_per_year_of(interval: Interval, times: Integers, listed: Mapping[str, tuple[int, int]]) -> float:
    """Periods in a year of a book with returns at these `times`, whose instruments come and go.

    While those of one calendar are there, it says: 252 days of 6.5 hours on a stock exchange, 365 days of 24 hours where
    trading never stops, 52 weeks. While there are several, a time that they share counts once, so the times themselves tell, by
    the days that passed. A coin that joins late makes no 365 days of the years before.

    listed: calendar → times of the first and the last bar of any instrument that follows it; epoch microseconds all. Without
    any calendar trading never stops.
    """
    import numpy as np

    names = sorted(listed, key=lambda name: (-calendar_named(name).periods_per_year(interval), name)) or [ALWAYS]
    most = calendar_named(names[0]).periods_per_year(interval)
    if len(names) < 2 or not times.size or interval.seconds >= 7 * _DAY:
        return most
    there = np.array([(listed[name][0] <= times) & (times <= listed[name][1]) for name in names])
    edges = np.flatnonzero((there[:, 1:] != there[:, :-1]).any(axis=0)) + 1
    years = 0.0
    for start, stop in pairwise([0, *edges.tolist(), len(times)]):
        present = [name for name, held in zip(names, there[:, start].tolist(), strict=True) if held]
        if len(present) > 1:
            years += float(times[stop - 1] - times[start] + interval.microseconds) / (_YEAR * 1_000_000)
        else:
            years += (stop - start) / calendar_named((present or names)[0]).periods_per_year(interval)
    return round(len(times) / years, 9)
