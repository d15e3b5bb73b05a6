"""What models, strategies and backtests came to, in Postgres. Every write is an upsert: the same again changes nothing. The
predictions of a fold and the equity of an account are exactly those last written.

Frames hold the columns of the tables below, in any order; `manifest` and `metrics` are JSON texts, times Datetime("us", "UTC").
"""

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from tidemill.storage.merge import MERGE_ROWS, Merged, Table, copy_merge, copy_slice
from tidemill.storage.postgres import Database

MODELS = Table(
    "models",
    {
        "model_id": "text",
        "dataset": "text",
        "engine": "text",
        "fold": "int4",
        "path": "text",
        "manifest": "jsonb",
        "metrics": "jsonb",
    },
    key=("model_id",),
)
PREDICTIONS = Table(
    "predictions",
    {
        **dict.fromkeys(("book", "dataset", "engine", "symbol"), "text"),
        "open_time": "timestamptz",
        "model_id": "text",
        "fold": "int4",
        "prediction": "float8",
        "known_at": "timestamptz",
    },
    key=("book", "symbol", "open_time"),
)
SIGNALS = Table(
    "signals",
    {
        **dict.fromkeys(("dataset", "strategy", "engine", "symbol"), "text"),
        "open_time": "timestamptz",
        "weight": "float8",
        "known_at": "timestamptz",
    },
    key=("dataset", "strategy", "engine", "symbol", "open_time"),
)
EQUITY = Table("equity", {"account": "text", "time": "timestamptz", "equity": "float8"}, key=("account", "time"))

_STRETCH = """
book = $1 AND fold = $2 AND ($3::timestamptz IS NULL OR open_time >= $3) AND ($4::timestamptz IS NULL OR open_time < $4)
"""


async def write_models(database: Database, models: pl.DataFrame) -> Merged:
    return await copy_merge(database, MODELS, models)


async def write_predictions(database: Database, book: str, fold: int, predictions: pl.DataFrame) -> Merged:
    """Make the fold of a book hold exactly these rows; rows that are the same are left alone.

    predictions: the columns of the table, all of this book and fold. A large fold goes in parts of whole bar times, each of
    which replaces its stretch of time in one transaction.
    """
    done = []
    for part, start, end in _stretches(predictions.sort("open_time", "symbol")):
        done.append(await copy_slice(database, PREDICTIONS, part, _STRETCH, book, fold, start, end))
    counts = [[getattr(one, name) for one in done] for name in Merged.__struct_fields__]
    return Merged(*map(sum, counts))


def _stretches(rows: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, datetime | None, datetime | None]]:
    """Parts of about MERGE_ROWS rows with the stretches of time that they stand for, which cover all of it."""
    start: datetime | None = None
    while rows.height > MERGE_ROWS:
        end = rows["open_time"][MERGE_ROWS]
        early = rows.filter(pl.col("open_time") < end)
        if early.is_empty():
            break  # one bar time alone is more than a part
        yield early, start, end
        rows, start = rows.filter(pl.col("open_time") >= end), end
    yield rows, start, None


_WITHDRAW = """
DELETE FROM signals USING unnest($4::text[], $5::timestamptz[]) AS gone (symbol, open_time)
WHERE signals.dataset = $1 AND signals.strategy = $2 AND signals.engine = $3
  AND signals.symbol = gone.symbol AND signals.open_time = gone.open_time
"""


async def write_signals(database: Database, signals: pl.DataFrame) -> Merged:
    return await copy_merge(database, SIGNALS, signals)


async def withdraw_signals(database: Database, signals: pl.DataFrame) -> None:
    """Remove signals that nobody gives any more. signals: the columns of the key; what is not there needs no removal."""
    for (dataset, strategy, engine), rows in signals.group_by("dataset", "strategy", "engine"):
        for part in rows.iter_slices(MERGE_ROWS):
            keys = part["symbol"].to_list(), part["open_time"].to_list()
            await database.execute(_WITHDRAW, dataset, strategy, engine, *keys)


async def write_equity(database: Database, account: str, equity: pl.DataFrame) -> Merged:
    """Make an account hold exactly these rows: account, time, equity, all of this account."""
    return await copy_slice(database, EQUITY, equity, "account = $1", account)
