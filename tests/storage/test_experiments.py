"""The table of experiments in a real Postgres."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tidemill.domain.errors import TidemillError
from tidemill.storage.experiments import StoredExperiment, record, set_origin, stored_experiments, track, untrack
from tidemill.storage.postgres import Database

THEN = datetime(2024, 3, 1, 12, tzinfo=UTC)


def row(key: str = "a1", ran: datetime = THEN, **changes: object) -> StoredExperiment:
    given = {"id": key, "name": "mine", "content": "{}", "first_run_at": ran, "last_run_at": ran, **changes}
    return StoredExperiment(**given)  # type: ignore[arg-type]  # any field


async def test_a_first_run_is_kept_whole_and_the_newest_run_stands_first(database: Database) -> None:
    first = row(anchor=THEN - timedelta(days=90), tracked_since=THEN)
    await record(database, first)
    await record(database, row("b2", THEN + timedelta(hours=1)))
    assert await stored_experiments(database) == [row("b2", THEN + timedelta(hours=1)), first]


async def test_a_later_run_moves_the_time_and_never_the_anchor(database: Database) -> None:
    await record(database, row())
    later = THEN + timedelta(hours=5)
    await record(database, row(ran=later, anchor=THEN))
    await record(database, row(ran=THEN + timedelta(hours=2), anchor=later))
    (held,) = await stored_experiments(database)
    assert (held.first_run_at, held.last_run_at, held.anchor) == (THEN, later, THEN)


async def test_what_was_untracked_stays_so_when_it_is_run_again(database: Database) -> None:
    await record(database, row(tracked_since=THEN))
    await untrack(database, ["a1", "absent"])
    await record(database, row(tracked_since=THEN))
    assert [one.tracked_since for one in await stored_experiments(database)] == [None]
    await track(database, "a1")
    (held,) = await stored_experiments(database)
    await track(database, "a1")
    assert held.tracked_since is not None
    assert (await stored_experiments(database))[0].tracked_since == held.tracked_since


async def test_the_file_of_an_experiment_is_kept(database: Database) -> None:
    await record(database, row())
    await set_origin(database, "a1", "/work/mine.yaml")
    assert (await stored_experiments(database))[0].origin == "/work/mine.yaml"


async def test_a_mode_that_nobody_knows_is_refused(database: Database) -> None:
    await record(database, row())
    with pytest.raises((TidemillError, asyncpg.CheckViolationError)):
        await database.execute("UPDATE experiments SET mode = 'other'")
