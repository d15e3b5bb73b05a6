"""Looking at a few bars without polars and numpy, whose imports alone cost more than the whole of `tidemill data show` may.

The same rules as in `bar_reader`: of each bar the newest version known at the time asked about.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import NamedTuple

import msgspec

from tidemill.domain.intervals import Interval
from tidemill.storage.postgres import Database

_MONTHS = "SELECT month FROM bar_months WHERE venue = $1 AND interval = $2 AND month >= $3 AND month <= $4 ORDER BY month DESC"
_SPAN = """
SELECT min(open_time) FILTER (WHERE ended_at IS NULL), max(open_time) FILTER (WHERE ended_at IS NULL),
       min(open_time), max(open_time), max(ended_at)
FROM bars WHERE venue = $1 AND interval = $2 AND symbol = $3
"""
_NEWEST = """
SELECT symbol, open_time, open, high, low, close, volume, quote_volume, known_at FROM (
    SELECT DISTINCT ON (open_time) symbol, open_time, open, high, low, close, volume, quote_volume, known_at, ended_at
    FROM bars
    WHERE venue = $1 AND interval = $2 AND symbol = $3 AND open_time >= $4 AND open_time < $5
      AND ($6::timestamptz IS NULL OR known_at <= $6)
    ORDER BY open_time DESC, known_at DESC
) AS newest
WHERE ended_at IS NULL OR ended_at > $6
ORDER BY open_time DESC LIMIT $7
"""
_FIRST, _LAST = datetime(1700, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
# Months looked into at once: few for a first glance, more where bars are sparse or many are asked for.
_MONTHS_AT_ONCE = 3


class BarRow(msgspec.Struct, frozen=True):
    """One bar, in the order of BAR_COLUMNS."""

    symbol: str
    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    known_at: datetime


async def datasets(database: Database) -> list[tuple[str, str]]:
    """(venue, interval) of everything there are bars of."""
    rows = await database.fetch("SELECT DISTINCT venue, interval FROM bar_months ORDER BY venue, interval")
    return [(row["venue"], row["interval"]) for row in rows]


async def datasets_of(database: Database, symbol: str) -> list[tuple[str, str]]:
    """(venue, interval) under which there are bars of `symbol`."""
    sql = "SELECT venue, interval FROM series WHERE symbol = $1 ORDER BY venue, interval"
    return [(row["venue"], row["interval"]) for row in await database.fetch(sql, symbol)]


class SymbolSpan(NamedTuple):
    """First and last open time of a symbol's bars. left: when the last of them left the source; None while it has some."""

    first: datetime
    last: datetime
    left: datetime | None


async def span_of(database: Database, venue: str, interval: Interval, symbol: str) -> SymbolSpan:
    """Of a symbol that has, or had, bars there."""
    first, last, earliest, latest, left = await database.fetchrow(_SPAN, venue, str(interval), symbol)
    return SymbolSpan(earliest, latest, left) if first is None else SymbolSpan(first, last, None)


async def newest_rows(
    database: Database,
    venue: str,
    interval: Interval,
    symbol: str,
    *,
    limit: int,
    start: datetime | None = None,
    end: datetime | None = None,
    as_of: datetime | None = None,
) -> list[BarRow]:
    """The newest `limit` bars of one symbol with start ≤ open_time < end, ascending, as they were known at `as_of`."""
    low, high = start or _FIRST, end or _LAST
    found: list[BarRow] = []
    months = await database.fetch(
        _MONTHS, venue, str(interval), low.astimezone(UTC).date().replace(day=1), high.astimezone(UTC)
    )
    for first, after in _spans([row["month"] for row in months]):
        bounds = (max(first, low), min(after, high))
        rows = await database.fetch(_NEWEST, venue, str(interval), symbol, *bounds, as_of, limit - len(found))
        found += [BarRow(**row) for row in rows]
        if len(found) >= limit:
            break
    return found[::-1]


def _spans(months: list[date]) -> Iterator[tuple[datetime, datetime]]:
    """Half-open spans over months given newest first, each twice as long as the one before."""
    at, size = 0, _MONTHS_AT_ONCE
    while at < len(months):
        part = months[at : at + size]
        yield _midnight(part[-1]), _midnight(_next(part[0]))
        at, size = at + size, size * 2


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _next(month: date) -> date:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
