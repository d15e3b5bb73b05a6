"""Which experiment a name means, which go on, and that a home of before keeps them all."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.study.panels import small_experiment
from tests.study.running import run
from tidemill.config import Secret
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import CostSpec, DatasetSpec, EngineSpec, Experiment
from tidemill.experiments.files import experiment_from_text, to_text
from tidemill.experiments.tracked import (
    choice,
    chosen,
    content_of,
    experiments_of,
    fitting,
    goes_on,
    id_of,
    in_force,
    meant,
    require_own_name,
    row_of,
    start_tracking,
    stop_tracking,
)
from tidemill.storage.experiments import StoredExperiment, record
from tidemill.storage.made_from import write_note
from tidemill.storage.postgres import Database
from tidemill.storage.trials import read_trials
from tidemill.study.places import MADE_FROM
from tidemill.study.workspace import Workspace

THEN = datetime(2024, 3, 1, 12, tzinfo=UTC)
LIVE = Experiment(name="live", dataset=DatasetSpec(source="binance", interval="1h"), engines=(EngineSpec(name="ridge"),))
DEARER = msgspec.structs.replace(LIVE, costs=CostSpec(fee_bps=50.0))
ENDED = msgspec.structs.replace(LIVE, name="ended", dataset=DatasetSpec(source="binance", end="2024-01-01"))


@pytest.fixture
async def database(migrated_dsn: Secret) -> AsyncIterator[Database]:
    opened = await Database.connect(migrated_dsn, connections=2)
    yield opened
    await opened.close()


def rows(*experiments: Experiment) -> list[StoredExperiment]:
    """As they are stored, the one that was run last first."""
    return [row_of(one, THEN - timedelta(hours=at)) for at, one in enumerate(experiments)]


def test_an_id_is_of_what_is_said_and_of_the_name() -> None:
    assert id_of(LIVE) == id_of(experiment_from_text(to_text(LIVE), "text"))
    assert len({id_of(LIVE), id_of(DEARER), id_of(ENDED)}) == 3
    assert id_of(LIVE) == "1b21427a25fc", "ids outlive versions: a field that is added at its default changes none"


def test_content_comes_back_as_it_was() -> None:
    for experiment in (LIVE, DEARER, ENDED, small_experiment(Path("/panel"))):
        assert content_of(row_of(experiment, THEN)) == experiment


def test_only_a_venue_without_an_end_goes_on() -> None:
    assert [goes_on(one) for one in (LIVE, ENDED, small_experiment(Path("/panel")))] == [True, False, False]
    assert [row.tracked_since for row in rows(LIVE, ENDED)] == [THEN, None]


def test_a_name_means_the_one_that_was_run_last_and_an_id_exactly_one() -> None:
    known = rows(DEARER, LIVE)
    assert meant(known, "live").id == id_of(DEARER)
    assert meant(known, id_of(LIVE)).id == id_of(LIVE)
    with pytest.raises(UnknownNameError, match=r"Did you mean live\?.*Run it first: `tidemill run --experiment FILE`"):
        meant(known, "life")


def test_a_run_without_a_choice_is_of_what_was_run_last_and_in_a_new_home_of_the_sample() -> None:
    assert chosen(rows(DEARER, LIVE), choice(rows(DEARER, LIVE), "")) == DEARER
    assert chosen(rows(DEARER, LIVE), choice(rows(DEARER, LIVE), id_of(LIVE))) == LIVE
    assert chosen([], choice([], "")).name == "sample"
    assert chosen(rows(LIVE), choice(rows(LIVE), "all_engines")).name == "all-engines"
    with pytest.raises(UnknownNameError, match="no experiment that was run named 'absent'"):
        choice(rows(LIVE), "absent")


def test_what_fits_no_longer_stops_no_other() -> None:
    old = msgspec.structs.replace(rows(LIVE)[0], id="old", content='{"name": "old", "horizon": -3}')
    known = [old, *rows(LIVE)]
    assert [experiment for _, experiment in fitting(known)] == [LIVE]
    assert chosen(known, choice(known, "")) == LIVE
    with pytest.raises(InputError, match=r"The experiment live \(old\) is not an experiment"):
        content_of(old)


def test_in_force_are_those_that_go_on_and_the_newest_of_each_name() -> None:
    earlier = msgspec.structs.replace(ENDED, seed=8)
    assert in_force(rows(ENDED, earlier, DEARER, LIVE)) == [ENDED, DEARER, LIVE]


async def test_an_experiment_is_tracked_until_it_is_untracked(database: Database, tmp_path: Path) -> None:
    for row in rows(LIVE):
        await record(database, row)
    assert (await stop_tracking(database, tmp_path, "live")).id == id_of(LIVE)
    with pytest.raises(InputError, match=r"The experiment live is not tracked. `tidemill experiments list` shows"):
        await stop_tracking(database, tmp_path, "live")
    await start_tracking(database, tmp_path, id_of(LIVE))
    (held,) = await experiments_of(database, tmp_path)
    assert held.tracked_since is not None


async def test_two_experiments_of_one_name_are_not_both_tracked_by_hand(database: Database, tmp_path: Path) -> None:
    for row in rows(DEARER, LIVE):
        await record(database, row)
    with pytest.raises(InputError, match=f"named live are tracked: {id_of(DEARER)} and {id_of(LIVE)}. Say which one"):
        await stop_tracking(database, tmp_path, "live")
    await stop_tracking(database, tmp_path, id_of(DEARER))
    told = f"named live: {id_of(LIVE)} is tracked, and {id_of(DEARER)} is to be.*`tidemill experiments untrack {id_of(LIVE)}`"
    with pytest.raises(InputError, match=told):
        await start_tracking(database, tmp_path, "live")


async def test_what_ends_cannot_be_tracked(database: Database, tmp_path: Path) -> None:
    for row in rows(ENDED):
        await record(database, row)
    with pytest.raises(InputError, match=r"ended cannot be tracked: its bars end. Give it a source of binance"):
        await start_tracking(database, tmp_path, "ended")


def test_two_files_of_one_name_are_refused_and_one_that_was_edited_is_not(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(to_text(LIVE))
    known = [msgspec.structs.replace(rows(LIVE)[0], origin=str(first))]
    require_own_name(known, DEARER, first)
    require_own_name(known, LIVE, second)
    with pytest.raises(InputError, match=f"named live: that of {first} and that of {second}. Give one of them another `name`"):
        require_own_name(known, DEARER, second)
    first.write_text(to_text(msgspec.structs.replace(LIVE, name="other")))
    require_own_name(known, DEARER, second)
    first.unlink()
    require_own_name(known, DEARER, second)


async def test_a_home_of_before_keeps_its_experiments_and_what_goes_on(database: Database, tmp_path: Path) -> None:
    ran = {"a": (LIVE, THEN), "b": (ENDED, THEN + timedelta(days=1))}
    for key, (experiment, at) in ran.items():
        file = tmp_path / "reports" / key / "experiment.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(msgspec.json.encode(experiment))
        write_note(file.with_name(MADE_FROM), "print", file)
        os.utime(file, (at.timestamp(), at.timestamp()))
    found = await experiments_of(database, tmp_path)
    assert [(row.name, row.last_run_at, row.tracked_since) for row in found] == [
        ("ended", THEN + timedelta(days=1), None),
        ("live", THEN, THEN),
    ]
    assert await experiments_of(database, tmp_path) == found


@pytest.mark.finished
def test_a_run_leaves_its_row_with_the_anchor_and_an_upgrade_adds_no_trial(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder)
    before = workspace.call(read_trials, workspace.database)
    workspace.call(workspace.database.execute, "TRUNCATE experiments")  # as in a home of before
    (adopted,) = workspace.call(experiments_of, workspace.database, workspace.settings.home)
    assert (adopted.id, adopted.anchor) == (id_of(experiment), None)
    study, _ = run(workspace, experiment)
    (held,) = workspace.call(experiments_of, workspace.database, workspace.settings.home)
    assert held.anchor == study.folds[0].test_start
    assert (held.first_run_at, held.last_run_at) == (adopted.first_run_at, study.opened_at)
    assert workspace.call(read_trials, workspace.database).equals(before, null_equal=True)
