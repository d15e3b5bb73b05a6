"""Experiments that were run, one row for each content. Every change is one statement, seen whole."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from tidemill.storage.postgres import Database

Mode = Literal["backtest", "paper", "live"]

_RECORD = """
INSERT INTO experiments (id, name, content, anchor, tracked_since, first_run_at, last_run_at)
VALUES ($1, $2, $3, $4, $5, $6, $6)
ON CONFLICT (id) DO UPDATE SET
    last_run_at = greatest(experiments.last_run_at, excluded.last_run_at),
    anchor = coalesce(experiments.anchor, excluded.anchor)
"""
_ALL = "SELECT * FROM experiments ORDER BY last_run_at DESC, id"
_TRACK = "UPDATE experiments SET tracked_since = coalesce(tracked_since, clock_timestamp()) WHERE id = $1"
_UNTRACK = "UPDATE experiments SET tracked_since = NULL WHERE id = ANY($1::text[])"
_ORIGIN = "UPDATE experiments SET origin = $2 WHERE id = $1"


class StoredExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """A row; see the migration. content is not read here: one that fits no longer must not hide the others."""

    id: str
    name: str
    content: str
    origin: str = ""
    mode: Mode = "backtest"
    anchor: datetime | None = None
    tracked_since: datetime | None = None
    first_run_at: datetime
    last_run_at: datetime


async def record(database: Database, row: StoredExperiment) -> None:
    """Keep that an experiment was run, at `last_run_at`. Of one that is known nothing else changes but an anchor it lacks."""
    given = (row.id, row.name, row.content, row.anchor, row.tracked_since, row.last_run_at)
    await database.execute(_RECORD, *given)


async def stored_experiments(database: Database) -> list[StoredExperiment]:
    """All of them, the one that was run last first."""
    return [StoredExperiment(**dict(row)) for row in await database.fetch(_ALL)]


async def track(database: Database, experiment: str) -> None:
    """From now on, or since it was first said."""
    await database.execute(_TRACK, experiment)


async def untrack(database: Database, experiments: Sequence[str]) -> None:
    await database.execute(_UNTRACK, list(experiments))


async def set_origin(database: Database, experiment: str, origin: str) -> None:
    """The file that an experiment was read from."""
    await database.execute(_ORIGIN, experiment, origin)
