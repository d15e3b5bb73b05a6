"""What models, strategies and backtests came to, in Postgres. Every write is an upsert: the same again changes nothing. The
predictions of a fold and the equity of an account are exactly those last written.

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
        **dict.fromkeys(("experiment", "book", "decider", "account", "mode", "symbol"), "text"),
        "open_time": "timestamptz",
        "weight": "float8",
        "direction": "int4",
        "confidence": "float8",
        "known_at": "timestamptz",
        "expires_at": "timestamptz",
        "status": "text",
    },
    key=("experiment", "decider", "account", "mode", "symbol", "open_time"),
)
EQUITY = Table("equity", {"account": "text", "time": "timestamptz", "equity": "float8"}, key=("account", "time"))

_STRETCH = """
book = $1 AND fold = $2 AND ($3::timestamptz IS NULL OR open_time >= $3) AND ($4::timestamptz IS NULL OR open_time < $4)
"""

_BACKTEST = "experiment = $1 AND account = '' AND mode = 'backtest'"
_ASKED = f"""
{_BACKTEST} AND decider = ANY($2::text[])
AND ($3::timestamptz IS NULL OR open_time >= $3) AND ($4::timestamptz IS NULL OR open_time < $4)
"""
_OTHERS = f"FROM signals WHERE {_BACKTEST} AND NOT decider = ANY($2::text[])"
_OF_BOOK = f"SELECT {{}} FROM signals WHERE {_BACKTEST} AND book = $2 ORDER BY open_time, symbol"  # nosec B608


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
    return _sum(done)


def _sum(done: Sequence[Merged]) -> Merged:
    return Merged(*(sum(getattr(one, name) for one in done) for name in Merged.__struct_fields__))


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


async def write_signals(database: Database, experiment: str, deciders: Sequence[str], signals: pl.DataFrame) -> Merged:
    """Make what deciders asked for in the backtest of an experiment exactly these rows; what is the same is left alone.

    signals: the columns of the table, all of these deciders.
    """
    done = []
    for part, start, end in _stretches(signals.sort("open_time", "symbol")):
        done.append(await copy_slice(database, SIGNALS, part, _ASKED, experiment, list(deciders), start, end))
    return _sum(done)


async def keep_signals(database: Database, experiment: str, deciders: Sequence[str]) -> None:
    """Remove what others than these asked for in the backtest of an experiment."""
    if await database.fetchval(f"SELECT EXISTS (SELECT {_OTHERS})", experiment, list(deciders)):  # nosec B608
        await database.execute(f"DELETE {_OTHERS}", experiment, list(deciders))  # nosec B608


async def signals_of(database: Database, experiment: str, book: str) -> pl.DataFrame:
    """What is served of a book of an experiment: symbol, open_time, weight and what stands beside it, by time and symbol."""
    kinds = {name: kind for name, kind in SIGNALS.kinds.items() if name not in ("experiment", "book", "account", "mode")}
    return await read_frame(database, kinds, _OF_BOOK.format(", ".join(kinds)), experiment, book)


async def write_equity(database: Database, account: str, equity: pl.DataFrame) -> Merged:
    """Make an account hold exactly these rows: account, time, equity, all of this account."""
    return await copy_slice(database, EQUITY, equity, "account = $1", account)
