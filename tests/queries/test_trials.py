"""The ledger asked by awaiting it; what it counts is tested in tests/study/test_counting.py."""

import asyncio

import pytest

from tests.queries.conftest import Meanwhile
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.queries import trials
from tidemill.queries.trials import compare_trials, list_trials, since
from tidemill.storage.lake import Lake
from tidemill.storage.postgres import Database


@pytest.mark.finished
async def test_the_books_of_a_run_are_its_trials(database: Database) -> None:
    found = await list_trials(database, experiment="small")
    assert sorted(found["engine"]) == ["ensemble", "momentum", "ridge"]
    assert found["counted_at"].min() > (await since(database)).since
    assert (await list_trials(database, family="elsewhere.1d")).is_empty()


@pytest.mark.finished
async def test_trials_stand_side_by_side_with_their_figures_by_name(database: Database, lake: Lake) -> None:
    found = await compare_trials(database, lake, experiment="small")
    assert (found.family, found.counted, len(found.rows)) == ("panel.1d", 3, 3)
    listed = {row["trial"]: row["sharpe"] for row in (await list_trials(database)).to_dicts()}
    assert {row.trial: row.sharpe for row in found.rows} == listed
    assert all(row.sharpe_low is not None and row.sharpe_low < row.sharpe < row.sharpe_high for row in found.rows)


@pytest.mark.finished
async def test_asked_at_once_they_answer_as_alone(database: Database, lake: Lake) -> None:
    whole, listed = await compare_trials(database, lake, experiment="small"), await list_trials(database)
    both = await asyncio.gather(compare_trials(database, lake, experiment="small"), list_trials(database))
    assert both[0] == whole
    assert both[1].equals(listed)


@pytest.mark.finished
async def test_the_loop_goes_on_while_trials_are_compared(database: Database, lake: Lake, meanwhile: Meanwhile) -> None:
    assert len((await meanwhile(compare_trials(database, lake, experiment="small"), trials, "select_trials")).rows) == 3


async def test_what_is_not_there_is_named(database: Database, lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="trials list"):
        await compare_trials(database, lake, ("nothing",))
    with pytest.raises(UnknownNameError, match="no experiment"):
        await compare_trials(database, lake, experiment="nobody's")
    with pytest.raises(InputError, match="ids"):
        await compare_trials(database, lake)
