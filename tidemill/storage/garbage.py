"""Rows of Postgres that nothing refers to any more: what there is of them, and their removal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from tidemill.storage.postgres import Database

# Of a real account nothing is ever garbage; a study's equity lies under the study's name.
_STUDY = r"account ~ '\.[0-9a-f]{8}$'"
_DECIDERS = """
SELECT id, experiment, made_for, valid_from, superseded_at, succeeds, content, pg_column_size(deciders.*) AS bytes,
    greatest(made_at, superseded_at) AS changed_at
FROM deciders
"""
_CHAMPIONS = """
SELECT decider, models, experiment::text AS experiment FROM (
    SELECT dataset, decider, array(SELECT value FROM jsonb_each_text(models)) AS models, experiment,
        row_number() OVER (PARTITION BY dataset ORDER BY id DESC) AS place
    FROM champions WHERE undone_at IS NULL
) AS promoted WHERE place <= $1
"""
_ORDERS = "SELECT DISTINCT decider FROM signals WHERE account <> '' OR mode <> 'backtest'"
_SIGNALS = """
SELECT experiment, decider, sum(pg_column_size(signals.*))::bigint AS bytes FROM signals
WHERE account = '' AND mode = 'backtest' GROUP BY experiment, decider
"""
_BOOKS = "SELECT DISTINCT book FROM predictions"
_EQUITY = f"SELECT DISTINCT account FROM equity WHERE {_STUDY}"  # nosec B608
_MODELS = "SELECT model_id FROM models WHERE created_at < $1"
_DROP_SIGNALS = """
DELETE FROM signals USING unnest($1::text[], $2::text[]) AS gone (experiment, decider)
WHERE signals.experiment = gone.experiment AND signals.decider = gone.decider AND account = '' AND mode = 'backtest'
"""
_DROP_DECIDERS = """
DELETE FROM deciders USING unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
    AS gone (id, experiment, made_for, valid_from)
WHERE deciders.id = gone.id AND deciders.experiment = gone.experiment
  AND deciders.made_for = gone.made_for AND deciders.valid_from = gone.valid_from
"""
_CHAMPIONS_KEPT = 2


class DeciderRow(NamedTuple):
    """changed_at: when it was made, or superseded."""

    id: str
    experiment: str
    made_for: str
    valid_from: datetime
    superseded_at: datetime | None
    succeeds: str
    content: str
    bytes: int
    changed_at: datetime


class KeptChampion(NamedTuple):
    """A champion that is current, or the one before. models: ids. experiment: JSON."""

    decider: str
    models: Sequence[str]
    experiment: str


async def decider_rows(database: Database) -> list[DeciderRow]:
    return [DeciderRow(**dict(row)) for row in await database.fetch(_DECIDERS)]


async def kept_champions(database: Database) -> list[KeptChampion]:
    """Of each dataset the current one and the one before."""
    return [KeptChampion(**dict(row)) for row in await database.fetch(_CHAMPIONS, _CHAMPIONS_KEPT)]


async def deciders_of_orders(database: Database) -> set[str]:
    """Ids of those that an account of money or paper was told by."""
    return {row["decider"] for row in await database.fetch(_ORDERS)}


async def signal_sizes(database: Database) -> dict[tuple[str, str], int]:
    """Experiment and decider → bytes of the signals of their backtest."""
    return {(row["experiment"], row["decider"]): row["bytes"] for row in await database.fetch(_SIGNALS)}


async def named_rows(database: Database, before: datetime) -> tuple[set[str], set[str], set[str]]:
    """Books that have predictions, studies that have equity, and models that are known since before a time."""
    books = {row["book"] for row in await database.fetch(_BOOKS)}
    studies = {row["account"] for row in await database.fetch(_EQUITY)}
    return books, studies, {row["model_id"] for row in await database.fetch(_MODELS, before)}


async def drop_deciders(database: Database, signals: Collection[tuple[str, str]], gone: Sequence[DeciderRow]) -> None:
    """Signals, by experiment and decider, and deciders, all or nothing: no signal is left without what asked for it."""
    async with database.transaction() as connection:
        await connection.execute(_DROP_SIGNALS, [pair[0] for pair in signals], [pair[1] for pair in signals])
        keys = zip(*((row.id, row.experiment, row.made_for, row.valid_from) for row in gone), strict=True)
        if gone:
            await connection.execute(_DROP_DECIDERS, *map(list, keys))


async def drop_rows(database: Database, table: str, column: str, names: Collection[str]) -> None:
    """All rows of a table that have one of these names in a column."""
    await database.execute(f"DELETE FROM {table} WHERE {column} = ANY($1::text[])", sorted(names))  # nosec B608
