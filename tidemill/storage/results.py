"""What models, strategies and backtests came to, in Postgres. Every write is an upsert: the same again changes nothing. The
predictions of a fold are exactly those last written.

Frames hold the columns of the tables below, in any order; `manifest` and `metrics` are JSON texts, times Datetime("us", "UTC").
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

import polars as pl

from tidemill.storage.merge import MERGE_ROWS, Merged, Table, copy_merge, copy_slice, read_frame
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
POSITIONS = Table(
    "positions",
    {"account": "text", "symbol": "text", "time": "timestamptz", "quantity": "float8"},
    key=("account", "symbol", "time"),
)
EQUITY = Table("equity", {"account": "text", "time": "timestamptz", "equity": "float8"}, key=("account", "time"))

_READ_PREDICTIONS = """
SELECT book, dataset, engine, symbol, open_time, model_id, fold, prediction, known_at FROM predictions
WHERE dataset = $1 AND ($2::text[] IS NULL OR engine = ANY ($2))
  AND ($3::timestamptz IS NULL OR open_time >= $3) AND ($4::timestamptz IS NULL OR open_time < $4)
ORDER BY engine, book, symbol, open_time
"""
_STRETCH = """
book = $1 AND fold = $2 AND ($3::timestamptz IS NULL OR open_time >= $3) AND ($4::timestamptz IS NULL OR open_time < $4)
"""
_READ_SIGNALS = """
SELECT dataset, strategy, engine, symbol, open_time, weight, known_at FROM signals
WHERE dataset = $1 AND ($2::text[] IS NULL OR symbol = ANY ($2)) AND ($3::timestamptz IS NULL OR open_time >= $3)
ORDER BY strategy, engine, symbol, open_time
"""
_READ_EQUITY = "SELECT account, time, equity FROM equity WHERE account = $1 ORDER BY time"
_READ_POSITIONS = "SELECT account, symbol, time, quantity FROM positions WHERE account = $1 ORDER BY time, symbol"
_READ_MODELS = """
SELECT model_id, dataset, engine, fold, path, manifest::text AS manifest, metrics::text AS metrics FROM models
WHERE ($1::text IS NULL OR dataset = $1) AND ($2::text IS NULL OR engine = $2) ORDER BY dataset, engine, fold, model_id
"""


async def write_models(database: Database, models: pl.DataFrame) -> Merged:
    return await copy_merge(database, MODELS, models)


async def read_models(database: Database, dataset: str | None = None, engine: str | None = None) -> pl.DataFrame:
    return await read_frame(database, MODELS.kinds, _READ_MODELS, dataset, engine)


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


async def read_predictions(
    database: Database,
    dataset: str,
    *,
    engines: Sequence[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
) -> pl.DataFrame:
    """By engine, symbol and time; start ≤ open_time < end."""
    return await read_frame(database, PREDICTIONS.kinds, _READ_PREDICTIONS, dataset, list(engines) or None, start, end)


async def write_signals(database: Database, signals: pl.DataFrame) -> Merged:
    return await copy_merge(database, SIGNALS, signals)


async def read_signals(
    database: Database, dataset: str, *, symbols: Sequence[str] = (), start: datetime | None = None
) -> pl.DataFrame:
    """By strategy, engine, symbol and time; start ≤ open_time."""
    return await read_frame(database, SIGNALS.kinds, _READ_SIGNALS, dataset, list(symbols) or None, start)


async def write_positions(database: Database, positions: pl.DataFrame) -> Merged:
    return await copy_merge(database, POSITIONS, positions)


async def read_positions(database: Database, account: str) -> pl.DataFrame:
    return await read_frame(database, POSITIONS.kinds, _READ_POSITIONS, account)


async def write_equity(database: Database, equity: pl.DataFrame) -> Merged:
    return await copy_merge(database, EQUITY, equity)


async def read_equity(database: Database, account: str) -> pl.DataFrame:
    return await read_frame(database, EQUITY.kinds, _READ_EQUITY, account)
