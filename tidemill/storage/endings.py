"""What left its source ends with a date of knowledge: it is in no newest view, and stays for who asks what was known before."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.storage.binary_copy import conform, encode
from tidemill.storage.merge import Merged
from tidemill.storage.postgres import Connection, Database

_KEYS = {"symbol": "text", "open_time": "timestamptz"}
_ACTIONS = {
    "symbol": "text",
    "kind": "text",
    "ex_time": "timestamptz",
    "value": "float8",
    "known_at": "timestamptz",
    "late": "bool",
}

# The lock that writers of a month take as well.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_STAGE_BARS = """
CREATE TEMP TABLE ending_bars (symbol text COLLATE "C", open_time timestamptz) ON COMMIT DROP;
SET LOCAL enable_nestloop = off
"""
_END_BARS = """
WITH ended AS (
    UPDATE bars SET ended_at = greatest($3, bars.known_at)
    FROM ending_bars gone
    WHERE bars.venue = $1 AND bars.interval = $2 AND bars.symbol = gone.symbol AND bars.open_time = gone.open_time
      AND bars.open_time >= $4 AND bars.open_time < $5 AND bars.ended_at IS NULL
    RETURNING bars.symbol, bars.open_time
)
SELECT count(DISTINCT (symbol, open_time)) FROM ended
"""
_MONTH = """
UPDATE bar_months SET version = version + 1, changed_at = $4, rows = rows - $5
WHERE venue = $1 AND interval = $2 AND month = $3
"""
_END_SERIES = """
UPDATE series SET ended_at = $4
WHERE venue = $1 AND interval = $2 AND symbol = ANY ($3) AND ended_at IS NULL AND NOT EXISTS (
    SELECT FROM bars
    WHERE bars.venue = $1 AND bars.interval = $2 AND bars.symbol = series.symbol AND bars.ended_at IS NULL
)
"""

_STAGE_ACTIONS = """
CREATE TEMP TABLE staged_actions (
    symbol text COLLATE "C", kind text, ex_time timestamptz, value float8, known_at timestamptz, late bool
) ON COMMIT DROP
"""
# A first version is taken for as old as what it tells of; one that follows another, or bars without it, from its receipt.
_WRITE_ACTIONS = """
INSERT INTO adjustments (venue, symbol, kind, ex_time, value, known_at, recorded_at)
SELECT $1, staged.symbol, staged.kind, staged.ex_time, staged.value, staged.known_at,
       greatest(staged.known_at, (
           SELECT greatest($2::timestamptz, max(earlier.recorded_at) + interval '1 microsecond') FROM adjustments earlier
           WHERE earlier.venue = $1 AND (earlier.symbol, earlier.kind, earlier.ex_time, earlier.known_at)
                                      = (staged.symbol, staged.kind, staged.ex_time, staged.known_at)
           HAVING count(*) > 0
       ), CASE WHEN staged.late THEN $2::timestamptz END)
FROM staged_actions staged
WHERE NOT EXISTS (
    SELECT FROM adjustments held
    WHERE held.venue = $1 AND held.ended_at IS NULL
      AND (held.symbol, held.kind, held.ex_time, held.known_at) = (staged.symbol, staged.kind, staged.ex_time, staged.known_at)
)
"""
_END_CHANGED = """
UPDATE adjustments held SET ended_at = $2 FROM staged_actions staged
WHERE held.venue = $1 AND held.ended_at IS NULL AND held.value <> staged.value
  AND (held.symbol, held.kind, held.ex_time, held.known_at) = (staged.symbol, staged.kind, staged.ex_time, staged.known_at)
"""
_END_WITHDRAWN = """
UPDATE adjustments held SET ended_at = $2
WHERE held.venue = $1 AND held.ended_at IS NULL AND ($3::text[] IS NULL OR held.symbol = ANY ($3))
  AND ($4::timestamptz IS NULL OR held.ex_time >= $4) AND ($5::timestamptz IS NULL OR held.ex_time < $5)
  AND NOT EXISTS (
    SELECT FROM staged_actions staged
    WHERE (held.symbol, held.kind, held.ex_time, held.known_at) = (staged.symbol, staged.kind, staged.ex_time, staged.known_at)
)
"""


# A month starts at version 1 and whatever ends in it makes the next: only the others can hold what is gone. A connection that
# opens every month of a history for the first time takes 30 ms for it.
_CHANGED = """
SELECT min(month)::timestamp AT TIME ZONE 'UTC' AS first, (max(month) + interval '1 month') AT TIME ZONE 'UTC' AS after
FROM bar_months WHERE venue = $1 AND interval = $2 AND version > 1
"""
# Bars between $5 and $6 of which every version has ended.
_GONE = """
SELECT count(*) AS bars, array_agg(DISTINCT symbol ORDER BY symbol) AS symbols,
       min(open_time) AS first, max(open_time) AS last, min(at) AS since, max(at) AS until
FROM (
    SELECT symbol, open_time, max(ended_at) AS at FROM bars
    WHERE venue = $1 AND interval = $2 AND ended_at IS NOT NULL AND ($3::text[] IS NULL OR symbol = ANY ($3))
      AND open_time >= $5 AND open_time < $6
    GROUP BY symbol, open_time
) ended
WHERE ($4::timestamptz IS NULL OR at >= $4) AND NOT EXISTS (
    SELECT FROM bars live
    WHERE live.venue = $1 AND live.interval = $2 AND live.symbol = ended.symbol AND live.open_time = ended.open_time
      AND live.open_time >= $5 AND live.open_time < $6 AND live.ended_at IS NULL
)
"""


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """Bars of a dataset that its source does not have any more, and between which times they ended."""

    bars: int
    symbols: tuple[str, ...]
    first: datetime
    last: datetime
    since: datetime
    until: datetime


class Mirrored(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a dataset that a source is the whole of. symbols: all when empty; start, end: None for no bound."""

    symbols: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None


async def gone_bars(
    database: Database, venue: str, interval: Interval, symbols: Sequence[str] = (), *, since: datetime | None = None
) -> Gone | None:
    """What ended, at `since` or later, and did not come back; of all symbols when none is named. None where nothing did."""
    changed = await database.fetchrow(_CHANGED, venue, str(interval))
    if changed["first"] is None:
        return None
    row = await database.fetchrow(_GONE, venue, str(interval), list(symbols) or None, since, changed["first"], changed["after"])
    return Gone(**{**row, "symbols": tuple(row["symbols"])}) if row["bars"] else None


async def end_bars(database: Database, venue: str, interval: Interval, keys: pl.DataFrame, at: datetime) -> int:
    """See BarStore.end. A month is one transaction, with its version and its number of bars."""
    ended = 0
    months = keys.select(list(_KEYS)).unique().sort("open_time", "symbol")
    for (month,), rows in months.group_by(pl.col("open_time").dt.truncate("1mo").dt.date(), maintain_order=True):
        async with database.transaction() as connection:
            await connection.execute(_LOCK, f"bars/{venue}/{interval}/{month}")
            ended += await _end_month(connection, (venue, str(interval)), month, rows, at)
    return ended


async def _end_month(connection: Connection, of: tuple[str, str], month: date, rows: pl.DataFrame, at: datetime) -> int:
    await connection.execute(_STAGE_BARS)
    await connection.copy_in("ending_bars", list(_KEYS), encode(rows.sort("symbol", "open_time"), _KEYS))
    first = datetime(month.year, month.month, 1, tzinfo=UTC)
    after = (first + timedelta(days=31)).replace(day=1)
    ended = int(await connection.fetchval(_END_BARS, *of, at, first, after))
    if ended:
        await connection.execute(_MONTH, *of, month, at, ended)
        await connection.execute(_END_SERIES, *of, rows["symbol"].unique().to_list(), at)
    return ended


async def write_actions(
    database: Database, venue: str, actions: pl.DataFrame, at: datetime, mirrored: Mirrored | None
) -> Merged:
    """See BarStore.write_adjustments."""
    told = actions if "late" in actions.columns else actions.with_columns(late=pl.lit(value=False))
    staged = conform(told, _ACTIONS).unique()
    withdrawn = 0
    async with database.transaction() as connection:
        await connection.execute(_LOCK, f"actions/{venue}")
        await connection.execute(_STAGE_ACTIONS)
        await connection.copy_in("staged_actions", list(_ACTIONS), encode(staged, _ACTIONS))
        changed = _rows(await connection.execute(_END_CHANGED, venue, at))
        if mirrored is not None:
            bounds = (list(mirrored.symbols) or None, mirrored.start, mirrored.end)
            withdrawn = _rows(await connection.execute(_END_WITHDRAWN, venue, at, *bounds))
        written = _rows(await connection.execute(_WRITE_ACTIONS, venue, at))
    return Merged(written - changed, changed, staged.height - written, withdrawn)


def _rows(status: str) -> int:
    """How many rows a statement touched, from its status, such as `UPDATE 3`."""
    return int(status.rpartition(" ")[2])
