"""Bars into Postgres: binary COPY, and one merge where bars of that time may exist already.

The unit is a batch: at most 150,000 rows of one calendar month, stored whole or not at all; batches of different months
go through several connections at once. A call that failed half-way is simply repeated: what is there changes nothing.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import date, datetime
from typing import NamedTuple

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import PRICE_COLUMNS, valid_symbol
from tidemill.storage.binary_copy import conform, encode
from tidemill.storage.merge import MERGE_ROWS, in_parallel
from tidemill.storage.postgres import Connection, Database
from tidemill.storage.postgres_errors import BusyError

BATCH_ROWS = 150_000
_WRITERS = 2
_PATIENCE = 30.0

STAGED = {
    "symbol": "text",
    "open_time": "timestamptz",
    "known_at": "timestamptz",
    **dict.fromkeys((*PRICE_COLUMNS, "volume", "quote_volume"), "float8"),
    "vintage_unknown": "bool",
}
_STORED = {"venue": "text", "interval": "text", "recorded_at": "timestamptz", **STAGED}

_LOCK = "SELECT set_config('lock_timeout', '2s', true), pg_advisory_xact_lock(hashtextextended($1, 0))"
_PARTITION = "SELECT bars_partition($1) AS name, to_regclass(bars_partition($1)) IS NOT NULL AS exists"
_OCCUPIED = """
SELECT EXISTS (
    SELECT FROM bars WHERE venue = $1 AND interval = $2 AND symbol = ANY ($3) AND open_time >= $4 AND open_time <= $5
)
"""
_STAGING = """
CREATE TEMP TABLE IF NOT EXISTS staged_bars (
    symbol text COLLATE "C", open_time timestamptz, known_at timestamptz, open float8, high float8, low float8, close float8,
    volume float8, quote_volume float8, vintage_unknown boolean
) ON COMMIT DELETE ROWS;
TRUNCATE staged_bars;
SET LOCAL enable_nestloop = off
"""
# Without statistics the planner might pair both sides row by row: hence no nested loops above.
_MERGE = """
WITH newest AS (
    SELECT DISTINCT ON (symbol, open_time) symbol, open_time, known_at, open, high, low, close, volume, quote_volume,
           ended_at
    FROM bars
    WHERE venue = $1 AND interval = $2 AND symbol >= $3 AND symbol <= $4 AND open_time >= $5 AND open_time <= $6
    ORDER BY symbol, open_time, known_at DESC
), changed AS (
    SELECT staged.*, newest.known_at AS replaced, newest.ended_at
    FROM staged_bars staged LEFT JOIN newest USING (symbol, open_time)
    WHERE newest.known_at IS NULL OR newest.ended_at IS NOT NULL
       OR (newest.open, newest.high, newest.low, newest.close, newest.volume, newest.quote_volume)
          IS DISTINCT FROM (staged.open, staged.high, staged.low, staged.close, staged.volume, staged.quote_volume)
), written AS (
    INSERT INTO bars (venue, interval, symbol, open_time, known_at, open, high, low, close, volume, quote_volume, recorded_at,
                      vintage_unknown)
    SELECT $1, $2, symbol, open_time,
           CASE WHEN replaced IS NULL THEN known_at ELSE greatest($7, replaced + interval '1 microsecond', ended_at) END,
           open, high, low, close, volume, quote_volume, $7, replaced IS NULL AND vintage_unknown
    FROM changed ORDER BY symbol, open_time
)
SELECT count(*) FILTER (WHERE replaced IS NULL) AS inserted, count(*) FILTER (WHERE replaced IS NOT NULL) AS restated,
       count(*) FILTER (WHERE ended_at IS NOT NULL) AS revived
FROM changed
"""
_SERIES = """
INSERT INTO series (venue, interval, symbol) SELECT $1, $2, symbol FROM unnest($3::text[]) AS symbol ORDER BY symbol
ON CONFLICT (symbol, venue, interval) DO UPDATE SET ended_at = NULL WHERE series.ended_at IS NOT NULL
"""
_MONTH = """
INSERT INTO bar_months (venue, interval, month, version, changed_at, rows) VALUES ($1, $2, $3, 1, $4, $5)
ON CONFLICT (venue, interval, month) DO UPDATE
SET version = bar_months.version + 1, changed_at = excluded.changed_at, rows = bar_months.rows + excluded.rows
"""


class _Stored(NamedTuple):
    """Rows of a batch: new bars, other versions of bars, and of these the ones that had ended."""

    inserted: int
    restated: int = 0
    revived: int = 0


class BarWrite(msgspec.Struct, frozen=True):
    """What a write changed, in rows. changed_months: `YYYY-MM` with new or restated rows, ascending."""

    inserted: int = 0
    unchanged: int = 0
    restated: int = 0
    changed_months: tuple[str, ...] = ()


class Batch(msgspec.Struct, frozen=True):
    """Rows of one month, sorted by symbol and time, with the columns of STAGED."""

    venue: str
    interval: Interval
    month: date
    rows: pl.DataFrame
    received_at: datetime

    @property
    def symbols(self) -> list[str]:
        return [str(symbol) for symbol in self.rows["symbol"].unique(maintain_order=True)]


async def write_bars(database: Database, venue: str, interval: Interval, bars: pl.DataFrame, received_at: datetime) -> BarWrite:
    """See BarStore.write."""
    results: list[tuple[str, int, int, int]] = []

    async def store(batch: Batch) -> None:
        inserted, restated, _ = await _with_patience(lambda: _write_batch(database, batch))
        results.append((f"{batch.month:%Y-%m}", inserted, batch.rows.height - inserted - restated, restated))

    await in_parallel(store, batches(venue, interval, bars, received_at), min(_WRITERS, database.connections))
    return BarWrite(
        inserted=sum(inserted for _, inserted, _, _ in results),
        unchanged=sum(unchanged for _, _, unchanged, _ in results),
        restated=sum(restated for _, _, _, restated in results),
        changed_months=tuple(sorted({month for month, inserted, _, restated in results if inserted or restated})),
    )


def batches(venue: str, interval: Interval, bars: pl.DataFrame, received_at: datetime) -> Iterator[Batch]:
    """Checked rows, month by month."""
    checked = _checked(bars, interval)
    for (month,), rows in checked.group_by(pl.col("open_time").dt.truncate("1mo").dt.date(), maintain_order=True):
        for part in rows.iter_slices(BATCH_ROWS):
            yield Batch(venue, interval, month, part, received_at)


def _checked(bars: pl.DataFrame, interval: Interval) -> pl.DataFrame:
    """Columns, types, names, grid and uniqueness; what only the values can break is refused by the table itself."""
    close_time = pl.col("open_time") + pl.duration(microseconds=interval.microseconds)
    absent = {"known_at": close_time, "quote_volume": pl.lit(None, pl.Float64)}
    typed = bars.with_columns(pl.col("open_time").cast(pl.Datetime("us", "UTC")))
    complete = typed.with_columns(value.alias(name) for name, value in absent.items() if name not in bars.columns)
    rows = conform(complete.with_columns(vintage_unknown=pl.col("known_at") == close_time), STAGED)
    for symbol in rows["symbol"].unique():
        valid_symbol(symbol or "")
    off_grid = (pl.col("open_time").to_physical() - interval.origin_microseconds) % interval.step_microseconds != 0
    if rows.select((off_grid | pl.col("open_time").is_null()).any()).item():
        raise InputError(f"A bar's open time is not on the grid of {interval} bars. Validate the bars before they are stored.")
    return _without_duplicates(rows)


def _without_duplicates(rows: pl.DataFrame) -> pl.DataFrame:
    """Sorted by symbol and time, equal rows once. InputError when one bar is given with two sets of values."""
    key = pl.struct("symbol", "open_time")
    same_symbol = pl.col("symbol") == pl.col("symbol").shift()
    ordered = (pl.col("symbol") > pl.col("symbol").shift()) | (
        same_symbol & (pl.col("open_time") > pl.col("open_time").shift())
    )
    if rows.select(ordered.all()).item():
        return rows
    distinct = rows.unique().sort("symbol", "open_time")
    repeated = distinct.filter(key.is_duplicated())
    if repeated.height:
        symbol, open_time = repeated.row(0)[:2]
        raise InputError(f"{symbol} has two bars with different values at {open_time:%Y-%m-%d %H:%M} UTC. Keep one of them.")
    return distinct


async def _with_patience(work: Callable[[], Awaitable[_Stored]]) -> _Stored:
    """Repeat while another writer holds the month; its transaction rolled back, so nothing was done."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return await work()
        except BusyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(random.uniform(0.01, 0.1))  # nosec B311 - jitter, not a secret


async def _write_batch(database: Database, batch: Batch) -> _Stored:
    """One transaction."""
    async with database.transaction() as connection:
        # Writers of the same bars take turns, so that what is compared is what is replaced.
        await connection.execute(_LOCK, f"bars/{batch.venue}/{batch.interval}/{batch.month}")
        done = await _store(connection, batch)
        if more := done.inserted + done.revived:
            await connection.execute(_SERIES, batch.venue, str(batch.interval), batch.symbols)
        if done.inserted or done.restated:
            await connection.execute(_MONTH, batch.venue, str(batch.interval), batch.month, batch.received_at, more)
    return done


async def _store(connection: Connection, batch: Batch) -> _Stored:
    partition = await connection.fetchrow(_PARTITION, batch.month)
    if not partition["exists"]:
        await connection.execute(_LOCK, f"bars/{batch.month}")
        partition = await connection.fetchrow(_PARTITION, batch.month)
    if not partition["exists"]:
        await connection.execute("SELECT create_bars_partition($1)", batch.month)
        await _append(connection, partition["name"], batch)
        await connection.execute("SELECT attach_bars_partition($1)", batch.month)
        return _Stored(batch.rows.height)
    if await _occupied(connection, batch):
        return await _merge(connection, batch)
    await _append(connection, partition["name"], batch)
    return _Stored(batch.rows.height)


async def _occupied(connection: Connection, batch: Batch) -> bool:
    times = batch.rows["open_time"]
    return bool(await connection.fetchval(_OCCUPIED, batch.venue, str(batch.interval), batch.symbols, times.min(), times.max()))


async def _append(connection: Connection, table: str, batch: Batch) -> None:
    """COPY straight into the month's partition: nothing of these bars is there yet."""
    rows = batch.rows.with_columns(
        venue=pl.lit(batch.venue), interval=pl.lit(str(batch.interval)), recorded_at=pl.lit(batch.received_at)
    )
    await connection.copy_in(table, list(_STORED), encode(rows, _STORED))


async def _merge(connection: Connection, batch: Batch) -> _Stored:
    done = _Stored(0)
    for part in batch.rows.iter_slices(MERGE_ROWS):
        await connection.execute(_STAGING)
        await connection.copy_in("staged_bars", list(STAGED), encode(part, STAGED))
        times = part["open_time"]
        bounds = (part["symbol"][0], part["symbol"][-1], times.min(), times.max())
        counts = await connection.fetchrow(_MERGE, batch.venue, str(batch.interval), *bounds, batch.received_at)
        done = _Stored(*(before + counts[name] for name, before in done._asdict().items()))
    return done
