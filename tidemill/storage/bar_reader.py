"""Bars out of Postgres, in pieces whose rows stream from the index: a read makes progress from its first row to its last.

A sort of millions of rows would send nothing for seconds, and silence is how a dead server is recognised.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS
from tidemill.storage.binary_copy import decode_grouped
from tidemill.storage.postgres import Connection, Database

_PIECE_ROWS = 200_000

_MONTHS = """
SELECT month, rows FROM bar_months
WHERE venue = $1 AND interval = $2 AND ($3::date IS NULL OR month >= $3) AND ($4::date IS NULL OR month <= $4)
ORDER BY month
"""
# In the order of the primary key: with sorting off, the planner takes the rows from it as they come.
_BARS = """
SELECT symbol, open_time, known_at, open, high, low, close, volume, coalesce(quote_volume, 'NaN') AS quote_volume,
       coalesce(ended_at <= coalesce($6::timestamptz, 'infinity'), false) AS ended
FROM bars
WHERE venue = $1 AND interval = $2 AND open_time >= $3 AND open_time < $4
  AND ($5::text[] IS NULL OR symbol = ANY ($5))
  AND ($6::timestamptz IS NULL OR known_at <= $6)
ORDER BY symbol, open_time, known_at
"""
# Text is the only field of variable width and comes first, so rows of one symbol have one size.
_KINDS = {
    "symbol": "text",
    "open_time": "timestamptz",
    "known_at": "timestamptz",
    **dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume"), "float8"),
    "ended": "bool",
}


class BarQuery(msgspec.Struct, frozen=True, kw_only=True):
    """See BarStore.read."""

    venue: str
    interval: Interval
    symbols: Sequence[str] = ()
    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None
    limit: int | None = None


async def read_bars(database: Database, query: BarQuery) -> pl.DataFrame:
    """See BarStore.read. All pieces are of one snapshot."""
    pieces = [decode_grouped(b"", _KINDS)]
    rows = 0
    async with database.transaction(snapshot=True) as connection:
        await connection.execute("SET LOCAL enable_sort = off")
        months = await _months(connection, query)
        for start, end in reversed(months):
            if query.limit is not None and rows >= query.limit:
                break
            pieces.append(_newest_versions(await _piece(connection, query, start, end)))
            rows += pieces[-1].height
    bars = pl.concat(pieces)
    if query.limit is not None:
        bars = bars.sort("open_time", "symbol", descending=[True, False]).head(max(query.limit, 0))
    return bars.sort("symbol", "open_time").with_columns(pl.col("quote_volume").fill_nan(None)).select(BAR_COLUMNS)


async def _months(connection: Connection, query: BarQuery) -> list[tuple[datetime, datetime]]:
    """Spans of whole months, ascending, each with about 200,000 bars or one month."""
    bounds = [None if moment is None else moment.astimezone(UTC).date() for moment in (query.start, query.end)]
    first = None if bounds[0] is None else bounds[0].replace(day=1)
    found = await connection.fetch(_MONTHS, query.venue, str(query.interval), first, bounds[1])
    return list(_spans((row["month"], row["rows"]) for row in found))


def _spans(months: Iterable[tuple[date, int]]) -> Iterator[tuple[datetime, datetime]]:
    start: date | None = None
    last: date | None = None
    held = 0
    for month, rows in months:
        if start is not None and last is not None and held + rows > _PIECE_ROWS:
            yield _midnight(start), _midnight(_next(last))
            start, held = None, 0
        start = start or month
        last = month
        held += rows
    if start is not None and last is not None:
        yield _midnight(start), _midnight(_next(last))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _next(month: date) -> date:
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


async def _piece(connection: Connection, query: BarQuery, start: datetime, end: datetime) -> pl.DataFrame:
    """Every version known at `as_of`, by symbol, open time and time of knowledge."""
    low = start if query.start is None else max(start, query.start)
    high = end if query.end is None else min(end, query.end)
    symbols = list(query.symbols) or None
    data = await connection.copy_out(_BARS, query.venue, str(query.interval), low, high, symbols, query.as_of)
    return decode_grouped(data, _KINDS)


def _newest_versions(versions: pl.DataFrame) -> pl.DataFrame:
    """The last row of each bar that did not end."""
    next_symbol, next_time = pl.col("symbol").shift(-1), pl.col("open_time").shift(-1)
    superseded = (pl.col("symbol") == next_symbol) & (pl.col("open_time") == next_time)
    return versions.filter(~superseded.fill_null(False) & ~pl.col("ended"))
