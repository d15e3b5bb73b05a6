"""Bars and what belongs to them in Postgres, the system of record. Every version of a bar is kept (NUMBERS, Time)."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.storage import bar_rows
from tidemill.storage.bar_reader import BarQuery, read_bars
from tidemill.storage.bar_writer import BarWrite, write_bars
from tidemill.storage.endings import Mirrored, end_bars, write_actions
from tidemill.storage.merge import Merged, Table, copy_merge, read_frame
from tidemill.storage.postgres import Database

INSTRUMENTS = Table(
    "instruments",
    {
        **dict.fromkeys(("venue", "symbol", "calendar", "base", "quote"), "text"),
        **dict.fromkeys(("calendar_inferred", "can_short"), "bool"),
        **dict.fromkeys(("borrow_bps", "lot", "tick", "min_notional"), "float8"),
        **dict.fromkeys(("listed_at", "delisted_at"), "timestamptz"),
    },
    key=("venue", "symbol"),
)
_ADJUSTMENT_KINDS = {"symbol": "text", "kind": "text", "ex_time": "timestamptz", "value": "float8", "known_at": "timestamptz"}
QUARANTINE = Table(
    "quarantine",
    {
        **dict.fromkeys(("venue", "interval", "symbol"), "text"),
        "open_time": "timestamptz",
        **dict.fromkeys(("reason", "detail", "source"), "text"),
        "source_line": "int8",
    },
    key=("venue", "interval", "symbol", "open_time", "reason", "source", "source_line"),
)
GAPS = Table(
    "gaps",
    {
        **dict.fromkeys(("venue", "interval", "symbol"), "text"),
        **dict.fromkeys(("start_time", "end_time"), "timestamptz"),
        "missing": "int8",
        "filled_at": "timestamptz",
    },
    key=("venue", "interval", "symbol", "start_time", "end_time"),
)
_GAP_KINDS = {"symbol": "text", "start": "timestamptz", "end": "timestamptz", "missing": "int8"}
# A foreign file may hold anything; what is kept of it is bounded (and fits the index of its table).
_LONGEST = {"symbol": 100, "source": 300, "detail": 500}

_MONTHS = """
SELECT to_char(month, 'YYYY-MM') AS month, version, rows
FROM bar_months WHERE venue = $1 AND interval = $2 ORDER BY bar_months.month
"""
_READ_INSTRUMENTS = """
SELECT venue, symbol, calendar, calendar_inferred, base, quote, can_short, borrow_bps, lot, tick, min_notional, listed_at,
       delisted_at
FROM instruments WHERE venue = $1 AND ($2::text[] IS NULL OR symbol = ANY ($2)) ORDER BY symbol
"""
_READ_ADJUSTMENTS = """
SELECT DISTINCT ON (symbol, ex_time, kind) symbol, kind, ex_time, value, known_at
FROM adjustments
WHERE venue = $1 AND ($2::text[] IS NULL OR symbol = ANY ($2))
  AND ($3::timestamptz IS NULL OR greatest(known_at, recorded_at) <= $3)
  AND (ended_at IS NULL OR ended_at > $3)
ORDER BY symbol, ex_time, kind, adjustments.known_at DESC, recorded_at DESC
"""
_READ_QUARANTINE = """
SELECT venue, interval, symbol, open_time, reason, detail, source, source_line
FROM quarantine
WHERE ($1::text IS NULL OR venue = $1) AND ($2::text IS NULL OR interval = $2)
ORDER BY venue, interval, source, source_line, symbol, open_time LIMIT $3
"""
_QUARANTINE_COUNTS = """
SELECT reason, count(*) AS rows FROM quarantine WHERE venue = $1 AND interval = $2 GROUP BY reason ORDER BY reason
"""
_READ_GAPS = """
SELECT symbol, start_time, end_time, missing FROM gaps
WHERE venue = $1 AND interval = $2 AND filled_at IS NULL ORDER BY symbol, start_time
"""
_CLOSE_GAPS = """
UPDATE gaps SET filled_at = now()
WHERE venue = $1 AND interval = $2 AND filled_at IS NULL AND ($3::text[] IS NULL OR symbol = ANY ($3))
  AND (symbol, start_time, end_time) NOT IN (SELECT * FROM unnest($4::text[], $5::timestamptz[], $6::timestamptz[]))
"""


class BarStore:
    """Bars, instruments, adjustments, gaps and quarantined rows of one database. Writing the same again changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(
        self, venue: str, interval: Interval, bars: pl.DataFrame, *, received_at: datetime | None = None
    ) -> BarWrite:
        """Store validated bars (BAR_COLUMNS; `known_at` and `quote_volume` may be absent).

        The first version of a bar keeps its `known_at`; where that is the bar's close its vintage is unknown (NUMBERS, Time).
        Other values for a bar that exists become a new version, known at `received_at` (default: now). Stored in batches of at
        most 150,000 rows of one month, each whole or not at all; on an error repeat the call. InputError for rows off the
        grid or contradicting each other, IntegrityError for values that no bar can have, UnavailableError, DeadlineError.
        """
        return await write_bars(self._database, venue, interval, bars, received_at or datetime.now(UTC))

    async def end(self, venue: str, interval: Interval, keys: pl.DataFrame, *, at: datetime | None = None) -> int:
        """End bars that their source no longer has (`symbol, open_time`) at `at` (default: now); how many had not ended yet.

        They are in no newest view; asked as of an earlier time they are still there. Written again they are a new version.
        """
        return await end_bars(self._database, venue, interval, keys, at or datetime.now(UTC))

    async def read(
        self,
        venue: str,
        interval: Interval,
        *,
        symbols: Sequence[str] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        as_of: datetime | None = None,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Bars with start ≤ open_time < end, BAR_COLUMNS by symbol and time; of each the newest version known at `as_of`.

        symbols: all when empty. limit: the newest so many of them by time. Nothing found is an empty frame.
        """
        query = BarQuery(venue=venue, interval=interval, symbols=tuple(symbols), start=start, end=end, as_of=as_of, limit=limit)
        return await read_bars(self._database, query)

    async def datasets(self) -> list[tuple[str, str]]:
        """(venue, interval) of everything there are bars of."""
        return await bar_rows.datasets(self._database)

    async def datasets_of(self, symbol: str) -> list[tuple[str, str]]:
        """(venue, interval) under which there are bars of `symbol`."""
        return await bar_rows.datasets_of(self._database, symbol)

    async def symbols(self, venue: str, interval: Interval) -> list[str]:
        """Symbols that have bars, sorted; not those all of whose bars have ended."""
        sql = "SELECT symbol FROM series WHERE venue = $1 AND interval = $2 AND ended_at IS NULL ORDER BY symbol"
        return [row["symbol"] for row in await self._database.fetch(sql, venue, str(interval))]

    async def months(self, venue: str, interval: Interval) -> dict[str, int]:
        """`YYYY-MM` → version of the month's bars, ascending.

        The version grows with each change, in the same transaction: a copy of a month that notes the version it was made from
        knows when it is stale, however a write ended.
        """
        rows = await self._database.fetch(_MONTHS, venue, str(interval))
        return {row["month"]: row["version"] for row in rows}

    async def month_sizes(self, venue: str, interval: Interval) -> dict[str, tuple[int, int]]:
        """`YYYY-MM` → (version, number of bars), ascending; versions of one bar count once."""
        rows = await self._database.fetch(_MONTHS, venue, str(interval))
        return {row["month"]: (row["version"], row["rows"]) for row in rows}

    async def write_instruments(self, instruments: Sequence[Instrument]) -> Merged:
        rows = [msgspec.structs.asdict(instrument) for instrument in instruments]
        schema = dict.fromkeys(INSTRUMENTS.kinds)
        return await copy_merge(self._database, INSTRUMENTS, pl.DataFrame(rows, schema=schema, infer_schema_length=None))

    async def read_instruments(self, venue: str, symbols: Sequence[str] = ()) -> list[Instrument]:
        """By symbol; all of the venue when `symbols` is empty."""
        rows = await self._database.fetch(_READ_INSTRUMENTS, venue, list(symbols) or None)
        return [Instrument(**row) for row in rows]

    async def write_adjustments(
        self, venue: str, adjustments: pl.DataFrame, *, mirrored: Mirrored | None = None, received_at: datetime | None = None
    ) -> Merged:
        """adjustments: `symbol, kind, ex_time, value, known_at`. One with another value is a version known at `received_at`, as
        is one that is `late` where there is that column: told after bars that it should have come with.

        mirrored: of what `adjustments` is the whole; other actions there end at `received_at` (default: now).
        """
        return await write_actions(self._database, venue, adjustments, received_at or datetime.now(UTC), mirrored)

    async def read_adjustments(self, venue: str, symbols: Sequence[str] = (), *, as_of: datetime | None = None) -> pl.DataFrame:
        """`symbol, kind, ex_time, value, known_at` by symbol and time; of each action the newest version known at `as_of`."""
        return await read_frame(self._database, _ADJUSTMENT_KINDS, _READ_ADJUSTMENTS, venue, list(symbols) or None, as_of)

    async def write_quarantine(self, rows: pl.DataFrame) -> int:
        """Keep refused rows (`venue, interval, symbol, open_time, reason, detail, source, source_line`); counts the new.

        Long texts are cut and NUL characters replaced: what is foreign may hold anything.
        """
        texts = {name: pl.col(name).cast(pl.String).fill_null("") for name, kind in QUARANTINE.kinds.items() if kind == "text"}
        clean = [
            text.str.replace_all("\x00", "\ufffd", literal=True).str.slice(0, _LONGEST.get(name, 100))
            for name, text in texts.items()
        ]
        distinct = rows.with_columns(clean).unique(QUARANTINE.key, keep="first", maintain_order=True)
        return (await copy_merge(self._database, QUARANTINE, distinct)).inserted

    async def read_quarantine(
        self, venue: str | None = None, interval: Interval | None = None, *, limit: int | None = 10_000
    ) -> pl.DataFrame:
        """Quarantined rows by dataset, source and line; of everything when neither is given."""
        length = None if interval is None else str(interval)
        return await read_frame(self._database, QUARANTINE.kinds, _READ_QUARANTINE, venue, length, limit)

    async def quarantine_counts(self, venue: str, interval: Interval) -> dict[str, int]:
        """Reason → number of the dataset's quarantined rows, by reason."""
        rows = await self._database.fetch(_QUARANTINE_COUNTS, venue, str(interval))
        return {row["reason"]: row["rows"] for row in rows}

    async def write_gaps(self, venue: str, interval: Interval, gaps: pl.DataFrame, *, symbols: Sequence[str] = ()) -> Merged:
        """Make `gaps` (`symbol, start, end, missing`) the open gaps of the dataset, or of `symbols` of it.

        Open gaps that are not in the frame are marked as filled now; one that opens again loses that mark.
        """
        rows = gaps.rename({"start": "start_time", "end": "end_time"}).with_columns(
            venue=pl.lit(venue), interval=pl.lit(str(interval)), filled_at=pl.lit(None, pl.Datetime("us", "UTC"))
        )
        merged = await copy_merge(self._database, GAPS, rows)
        keys = [rows[name].to_list() for name in ("symbol", "start_time", "end_time")]
        await self._database.execute(_CLOSE_GAPS, venue, str(interval), list(symbols) or None, *keys)
        return merged

    async def read_gaps(self, venue: str, interval: Interval) -> pl.DataFrame:
        """Open gaps: `symbol, start, end (exclusive), missing` by symbol and time."""
        return await read_frame(self._database, _GAP_KINDS, _READ_GAPS, venue, str(interval))
