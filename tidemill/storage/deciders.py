"""Deciders, a row for each book and stretch of time of an experiment. A schedule is replaced in one transaction, seen whole."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from tidemill.storage.postgres import Connection, Database

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('deciders'), hashtext($1))"
_PUT = """
INSERT INTO deciders (id, experiment, book, valid_from, valid_to, content, made_for, made_of)
SELECT id, experiment, book, valid_from, valid_to, content, $1, $2
FROM unnest($3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::text[])
    AS given (id, experiment, book, valid_from, valid_to, content)
ON CONFLICT (id, experiment, made_for, valid_from)
    DO UPDATE SET superseded_at = NULL, valid_to = excluded.valid_to, made_of = excluded.made_of
"""
_GIVEN = ("id", "experiment", "book", "valid_from", "valid_to", "content")
_OF_RUN = "experiment = $1 AND made_for = 'run' AND superseded_at IS NULL"
_SUPERSEDE = f"UPDATE deciders SET superseded_at = clock_timestamp() WHERE {_OF_RUN} AND made_of <> $2"  # nosec B608
_MADE_OF = f"SELECT DISTINCT made_of FROM deciders WHERE {_OF_RUN}"  # nosec B608
_COLUMNS = "id, experiment, book, made_for, valid_from, valid_to, content, made_at, superseded_at, succeeds"
_CHAMPIONS = "SELECT DISTINCT ON (dataset) decider FROM champions WHERE undone_at IS NULL ORDER BY dataset, id DESC"
_IN_FORCE = f"""
SELECT {_COLUMNS} FROM deciders
WHERE superseded_at IS NULL AND (made_for = 'run' OR id IN ({_CHAMPIONS}))
  AND ($1::text IS NULL OR experiment = $1) AND ($2::text IS NULL OR book = $2)
ORDER BY experiment, made_for DESC, book, valid_from
"""  # nosec B608
# A run that ended early has rows here and is no experiment that was run.
_NAMED = f"""
SELECT {_COLUMNS} FROM deciders WHERE starts_with(id, $1)
ORDER BY EXISTS (SELECT FROM experiments AS run WHERE run.id = deciders.experiment) DESC, superseded_at IS NULL DESC,
    made_at DESC, valid_from
"""  # nosec B608

# A run that is under way waits, or is waited for: what it supersedes has no successor.
_LOCK_OF = """
SELECT pg_advisory_xact_lock(hashtext('deciders'), hashtext(experiment))
FROM (SELECT DISTINCT experiment FROM deciders WHERE id = $1 ORDER BY experiment) AS own
"""
# Made of nothing that a run can name: the next run writes its schedule anew.
_SUCCEED = """
INSERT INTO deciders (id, experiment, book, valid_from, valid_to, content, made_for, succeeds)
SELECT $2, experiment, book, valid_from, valid_to, $3, made_for, id FROM deciders WHERE id = $1 AND superseded_at IS NULL
ON CONFLICT (id, experiment, made_for, valid_from)
    DO UPDATE SET superseded_at = NULL, valid_to = excluded.valid_to, made_of = '', succeeds = excluded.succeeds
RETURNING id
"""
_SUCCEEDED = "UPDATE deciders SET superseded_at = clock_timestamp() WHERE id = $1 AND superseded_at IS NULL"
_TRADES_ON = "UPDATE champions SET decider = $2 WHERE decider = $1"

MadeFor = Literal["run", "champion"]


class StoredDecider(msgspec.Struct, frozen=True, kw_only=True):
    """A row; see the migrations. content: as `trading.decider` writes it, which is not read here."""

    id: str
    experiment: str
    book: str
    made_for: MadeFor = "run"
    valid_from: datetime
    valid_to: datetime | None
    content: str
    made_at: datetime | None = None
    superseded_at: datetime | None = None
    succeeds: str = ""


async def write_schedule(database: Database, experiment: str, made_of: str, schedule: Sequence[StoredDecider]) -> None:
    """Make `schedule` what is in force for an experiment; what was and is not in it any more is superseded."""
    async with database.transaction() as connection:
        await connection.execute(_LOCK, experiment)
        await _put(connection, "run", made_of, schedule)
        await connection.execute(_SUPERSEDE, experiment, made_of)


async def keep_champion(connection: Connection, decider: StoredDecider) -> None:
    """That of a champion, in the transaction of its promotion."""
    await _put(connection, "champion", "", [decider])


async def _put(connection: Connection, made_for: MadeFor, made_of: str, rows: Sequence[StoredDecider]) -> None:
    await connection.execute(_PUT, made_for, made_of, *([getattr(row, name) for row in rows] for name in _GIVEN))


async def succeed(database: Database, old: str, new: str, content: str) -> bool:
    """Put the decider `new` where `old` is in force, for champions too; both stay. False where `old` is in force no more."""
    async with database.transaction() as connection:
        await connection.execute(_LOCK_OF, old)
        made = await connection.fetch(_SUCCEED, old, new, content)
        await connection.execute(_SUCCEEDED, old)
        await connection.execute(_TRADES_ON, old, new)
    return bool(made)


async def is_schedule_of(database: Database, experiment: str, made_of: str) -> bool:
    """Whether what is in force for an experiment was made of this."""
    return [row["made_of"] for row in await database.fetch(_MADE_OF, experiment)] == [made_of]


async def in_force(database: Database, experiment: str | None = None, book: str | None = None) -> list[StoredDecider]:
    """The deciders of the newest run of each experiment, or of one; by book and time."""
    return [StoredDecider(**dict(row)) for row in await database.fetch(_IN_FORCE, experiment, book)]


async def named(database: Database, name: str) -> list[StoredDecider]:
    """Every row whose id begins with this: those of experiments that were run first, then those in force, then the newest."""
    return [StoredDecider(**dict(row)) for row in await database.fetch(_NAMED, name)]
