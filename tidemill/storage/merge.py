"""One way to write rows that have a key: binary COPY into a staging table, one merge. The same again changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from string import Template
from typing import TypeVar

import msgspec
import polars as pl

from tidemill.domain.errors import InputError, IntegrityError, TidemillError
from tidemill.storage.binary_copy import conform, encode, polars_type
from tidemill.storage.postgres import Database

Job = TypeVar("Job")

# One merge is one statement with one deadline: this many rows take a fraction of a second.
MERGE_ROWS = 50_000
_WRITERS = 2

_STAGING = Template("CREATE TEMP TABLE staged_$table ON COMMIT DROP AS SELECT $columns FROM $table WITH NO DATA")
# A row that this statement made has no deleting transaction (xmax) yet; one that it updated has its own.
_MERGE = Template("""
WITH written AS (
    INSERT INTO $table ($columns) SELECT $columns FROM staged_$table ORDER BY $key
    ON CONFLICT ($key) DO $action RETURNING xmax = 0 AS fresh
)
SELECT count(*) FILTER (WHERE fresh) AS inserted, count(*) FILTER (WHERE NOT fresh) AS updated FROM written
""")
# EXCEPT sorts or hashes whatever the planner thinks of the sizes; an anti-join was a nested loop on a fresh table.
_REMOVE = Template("""
WITH stale AS (SELECT $key FROM $table WHERE $slice EXCEPT SELECT $key FROM staged_$table),
gone AS (DELETE FROM $table USING stale WHERE $same RETURNING 1)
SELECT count(*) FROM gone
""")
_ANY = Template("SELECT EXISTS (SELECT FROM $table WHERE $slice)")


class Table(msgspec.Struct, frozen=True):
    """A table as its writer sees it. kinds: column → PostgreSQL type; columns that are not named keep their default.

    first_stays: a row whose key is there already changes nothing, whatever its values.
    """

    name: str
    kinds: dict[str, str]
    key: tuple[str, ...]
    first_stays: bool = False

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(column for column in self.kinds if column not in self.key)


class Merged(msgspec.Struct, frozen=True):
    """What a merge did, in rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0


async def copy_merge(database: Database, table: Table, frame: pl.DataFrame) -> Merged:
    """Insert rows with new keys, update rows whose values differ; in batches of 50,000, each stored whole or not at all.

    Raises InputError when a column is missing, a value does not fit or a key is given twice with different values.
    """
    rows = _by_key(table, conform(frame, table.kinds))
    done: list[Merged] = []

    async def store(part: pl.DataFrame) -> None:
        done.append(await _merge(database, table, part))

    await in_parallel(store, rows.iter_slices(MERGE_ROWS) if rows.height else (), min(_WRITERS, database.connections))
    return Merged(sum(m.inserted for m in done), sum(m.updated for m in done), sum(m.unchanged for m in done))


async def copy_slice(database: Database, table: Table, rows: pl.DataFrame, slice_: str, *args: object) -> Merged:
    """`copy_merge` of few rows in one transaction, in which every other row of the slice is removed.

    slice_: the condition that tells its rows, with $1 … for `args`; part of this package's source, never input.
    """
    distinct = _by_key(table, conform(rows, table.kinds))
    try:
        filled = await _fill(database, table, distinct, slice_, args)
    except IntegrityError:  # a key stands in another slice, which the merge moves; what breaks a rule, it refuses again
        filled = False
    return Merged(inserted=distinct.height) if filled else await _replace(database, table, distinct, slice_, args)


async def _fill(database: Database, table: Table, rows: pl.DataFrame, slice_: str, args: Sequence[object]) -> bool:
    """COPY into the table itself where the slice is empty, which takes half the time of a merge; whether it was."""
    async with database.transaction() as connection:
        if await connection.fetchval(_ANY.substitute(table=table.name, slice=slice_), *args):
            return False
        await connection.copy_in(table.name, list(table.kinds), encode(rows, table.kinds))
    return True


async def _replace(database: Database, table: Table, rows: pl.DataFrame, slice_: str, args: Sequence[object]) -> Merged:
    staging, merge = _statements(table)
    same = " AND ".join(f'stale."{name}" = {table.name}."{name}"' for name in table.key)
    remove = _REMOVE.substitute(table=table.name, slice=slice_, key=_names(table.key), same=same)
    async with database.transaction() as connection:
        await connection.execute(staging)
        await connection.copy_in(f"staged_{table.name}", list(table.kinds), encode(rows, table.kinds))
        deleted = await connection.fetchval(remove, *args)
        counts = await connection.fetchrow(merge)
    inserted, updated = int(counts["inserted"]), int(counts["updated"])
    return Merged(inserted, updated, rows.height - inserted - updated, int(deleted))


def _by_key(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Sorted by key, so that two writers never wait for each other in a circle; equal rows once."""
    distinct = rows.unique().sort(table.key, maintain_order=True)
    if distinct.select(pl.struct(table.key).is_duplicated().any()).item():
        raise InputError(
            f"Two rows for {table.name} have the same {', '.join(table.key)} and different values. Keep one of them."
        )
    return distinct


def _statements(table: Table) -> tuple[str, str]:
    """Statements that make the staging table and merge it. Names come from Table constants of this package, not from input."""
    excluded = ", ".join(f'excluded."{name}"' for name in table.values)
    update = Template("UPDATE SET ($names) = ROW($excluded) WHERE ($current) IS DISTINCT FROM ($excluded)").substitute(
        names=_names(table.values), excluded=excluded, current=", ".join(f'{table.name}."{name}"' for name in table.values)
    )
    names = {"table": table.name, "columns": _names(table.kinds), "key": _names(table.key)}
    return _STAGING.substitute(names), _MERGE.substitute(
        names, action=update if table.values and not table.first_stays else "NOTHING"
    )


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


async def _merge(database: Database, table: Table, rows: pl.DataFrame) -> Merged:
    staging, merge = _statements(table)
    async with database.transaction() as connection:
        await connection.execute(staging)
        await connection.copy_in(f"staged_{table.name}", list(table.kinds), encode(rows, table.kinds))
        counts = await connection.fetchrow(merge)
    inserted, updated = int(counts["inserted"]), int(counts["updated"])
    return Merged(inserted, updated, rows.height - inserted - updated)


async def in_parallel(work: Callable[[Job], Awaitable[None]], jobs: Iterable[Job], workers: int) -> None:
    """A few workers take jobs from one iterable; the first failure ends all of them and is raised."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await work(job)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise next((exc for exc in failures.exceptions if isinstance(exc, TidemillError)), failures.exceptions[0]) from failures


async def read_frame(database: Database, kinds: Mapping[str, str], sql: str, *args: object) -> pl.DataFrame:
    """Rows of a query whose columns are those of `kinds`, as a frame. For thousands of rows, not millions."""
    records = await database.fetch(sql, *args)
    schema = {name: polars_type(kind) for name, kind in kinds.items()}
    return pl.DataFrame([tuple(record) for record in records], schema=schema, orient="row")
