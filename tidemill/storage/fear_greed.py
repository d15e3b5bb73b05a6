"""Versions of the Fear & Greed Index in Postgres: what was known of a day at any time can be asked for again."""

from datetime import datetime, timedelta

import polars as pl

from tidemill.storage.merge import Merged, Table, copy_merge, read_frame
from tidemill.storage.postgres import Database

FEAR_GREED = Table(
    "fear_greed",
    {"source": "text", "stamp": "timestamptz", "known_at": "timestamptz", "value": "float8"},
    key=("source", "stamp", "known_at"),
)
_DELAY = timedelta(days=1)
_READ = "SELECT source, stamp, known_at, value FROM fear_greed WHERE source = $1 ORDER BY stamp, known_at"


async def read_fear_greed(database: Database, source: str) -> pl.DataFrame:
    """source, stamp, known_at, value: every version, by stamp and the time at which it was known."""
    return await read_frame(database, FEAR_GREED.kinds, _READ, source)


async def write_fear_greed(database: Database, source: str, values: pl.DataFrame, *, received_at: datetime) -> Merged:
    """Store `values[stamp, value]` of days that are over.

    A new day is known one day after its stamp; another value for a day that is stored is a version of its own, known from
    `received_at` on. A value that is stored already changes nothing. InputError for two values of one stamp.
    """
    latest = (await read_fear_greed(database, source)).group_by("stamp").agg(pl.col("value").last().alias("held"))
    changed = values.join(latest, on="stamp", how="left").filter(pl.col("held").is_null() | (pl.col("held") != pl.col("value")))
    receipt = pl.lit(received_at).cast(pl.Datetime("us", "UTC"))
    known_at = pl.when(pl.col("held").is_null()).then(pl.col("stamp") + _DELAY).otherwise(receipt)
    rows = changed.select(pl.lit(source).alias("source"), "stamp", known_at.alias("known_at"), "value")
    return await copy_merge(database, FEAR_GREED, rows)
