"""Import of a million real 5-minute bars: validation, Postgres, lake; and reading them back. Prints rows a second and ratios.

    python -m benchmarks.ingest [rows]

The slow way beside it is asyncpg's executemany on a part of the same rows. Medians of three rounds.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import polars as pl

from tidemill.calendars import ALWAYS
from tidemill.config import Secret, Settings
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS
from tidemill.embedded import servers, stop
from tidemill.keeper.folder import existing
from tidemill.quality.bars import validate_bars
from tidemill.storage.bars import BarStore
from tidemill.storage.lake import Lake
from tidemill.storage.migrations import migrate
from tidemill.storage.postgres import Database

DATA = Path(os.environ.get("TIDEMILL_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
FIVE_MINUTES = Interval.parse("5m")
ROUNDS = 3
SLOW_ROWS = 50_000


def load(rows: int) -> pl.DataFrame:
    scan = pl.scan_parquet(DATA / "binance_spot_2024_5m" / "binance_spot_5m.parquet")
    return (
        scan.with_columns(pl.col("open_time").cast(pl.Datetime("us", "UTC"))).sort("symbol", "open_time").head(rows).collect()
    )


def validate(raw: pl.DataFrame) -> pl.DataFrame:
    checked = validate_bars(
        raw, interval=FIVE_MINUTES, calendar=ALWAYS, now=datetime.now(UTC), source="benchmark", venue="benchmark"
    )
    return checked.good.select(BAR_COLUMNS)


def write_lake(lake: Lake, bars: pl.DataFrame) -> None:
    for (month,), part in bars.group_by(pl.col("open_time").dt.strftime("%Y-%m"), maintain_order=True):
        lake.write("bars", "benchmark.5m", str(month), part)


async def write_slowly(dsn: Secret, bars: pl.DataFrame) -> None:
    """Row by row through a prepared statement, in one transaction."""
    connection = await asyncpg.connect(dsn.reveal())
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE slow (LIKE bars INCLUDING ALL) ON COMMIT DROP")
        columns = ("symbol", "open_time", "known_at", "open", "high", "low", "close", "volume")
        await connection.executemany(
            f"INSERT INTO slow (venue, interval, {', '.join(columns)}, recorded_at, vintage_unknown) "
            "VALUES ('v', '5m', $1, $2, $3, $4, $5, $6, $7, $8, now(), true)",
            bars.select(columns).rows(),
        )
    await connection.close()


class Clock:
    """Seconds of each named step, all rounds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    async def time(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        if asyncio.iscoroutine(result):
            result = await result
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


async def one_round(clock: Clock, dsn: Secret, raw: pl.DataFrame, folder: Path) -> None:
    database = await Database.connect(dsn)
    await database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await migrate(database)
    store, lake = BarStore(database), Lake(folder)
    bars = await clock.time("validate", lambda: validate(raw))
    await clock.time("Postgres, new rows", lambda: store.write("benchmark", FIVE_MINUTES, bars))
    await clock.time("lake, new rows", lambda: write_lake(lake, bars))
    again = await clock.time("Postgres, same rows again", lambda: store.write("benchmark", FIVE_MINUTES, bars))
    assert (again.unchanged, again.inserted) == (bars.height, 0)
    found = await clock.time("read from Postgres", lambda: store.read("benchmark", FIVE_MINUTES))
    assert found.equals(bars)
    for _ in range(3):
        await clock.time("read from the lake", lambda: lake.scan("bars", "benchmark.5m").collect())
    await clock.time("executemany", lambda: write_slowly(dsn, bars.head(SLOW_ROWS)))
    await database.close()


def report(clock: Clock, rows: int) -> None:
    print(f"{rows:,} bars, medians of {ROUNDS} rounds")
    for name in clock.seconds:
        count = SLOW_ROWS if name == "executemany" else rows
        print(f"  {name:28s} {clock.median(name):7.3f} s  {count / clock.median(name):14,.0f} rows/s")
    total = sum(clock.median(name) for name in ("validate", "Postgres, new rows", "lake, new rows"))
    slow = SLOW_ROWS / clock.median("executemany")
    print(f"import end to end: {rows / total:,.0f} rows/s (asked: 150,000)")
    print(f"read for research: {rows / clock.median('read from the lake'):,.0f} rows/s (asked: 10,000,000)")
    print(f"ratio to executemany: {rows / clock.median('Postgres, new rows') / slow:.1f} ×")


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    raw = load(rows)
    clock = Clock()
    folder = Path(tempfile.mkdtemp(prefix="tidemill-benchmark-"))
    settings = Settings(home=folder / "home")
    try:
        with servers(settings) as running:
            for number in range(ROUNDS):
                asyncio.run(one_round(clock, running.postgres_dsn, raw, folder / f"lake{number}"))
    finally:
        stop(settings)
        made = existing(settings.home)
        if made is not None:
            shutil.rmtree(made.root)  # for root it lies outside the home
        shutil.rmtree(folder, ignore_errors=True)
    report(clock, raw.height)


if __name__ == "__main__":
    main()
