"""The experiments of a home: which were run, which one a name means, and which go on with every new bar.

A run that comes to its report leaves a row (`storage.experiments`). An experiment on a venue without an end goes on from its
first run until `tidemill experiments untrack`; another content is another experiment, also under the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tidemill.domain.errors import InputError, TidemillError, UnknownNameError
from tidemill.domain.experiment import Experiment
from tidemill.experiments.files import SAMPLE, load_experiment, shipped, written
from tidemill.market.sources import VENUES
from tidemill.provenance import fingerprint, stated
from tidemill.storage.experiments import StoredExperiment, record, stored_experiments, track, untrack
from tidemill.storage.postgres import Database
from tidemill.study.places import EXPERIMENT, experiment_from, stored_experiment
from tidemill.study.study import Study

_ID_DIGITS = 12


def id_of(experiment: Experiment) -> str:
    """Of its content, name included."""
    return fingerprint(stated(experiment))[:_ID_DIGITS]


def goes_on(experiment: Experiment) -> bool:
    """Whether new bars come by themselves: from a venue, and without an end."""
    return experiment.dataset.source in VENUES and experiment.dataset.end is None


def row_of(experiment: Experiment, ran: datetime, anchor: datetime | None = None) -> StoredExperiment:
    return StoredExperiment(
        id=id_of(experiment),
        name=experiment.name,
        content=msgspec.json.encode(stated(experiment)).decode(),
        anchor=anchor,
        tracked_since=ran if goes_on(experiment) else None,
        first_run_at=ran,
        last_run_at=ran,
    )


def record_run(study: Study) -> None:
    """Keep that a study was run. A bar that closed since it was opened is the next run's matter."""
    workspace, row = study.workspace, row_of(study.experiment, study.opened_at, study.folds[0].test_start)
    workspace.call(_adopted, workspace.database, workspace.settings.home, but=study.key)
    workspace.call(record, workspace.database, row)


async def experiments_of(database: Database, home: Path) -> list[StoredExperiment]:
    """All that were run in a home, the one that was run last first."""
    await _adopted(database, home)
    return await stored_experiments(database)


async def _adopted(database: Database, home: Path, *, but: str = "") -> None:
    """A home of before has reports and no rows: every experiment with a report is taken over, as it was run.

    but: the study whose report is none of before.
    """
    if await stored_experiments(database):
        return
    for row in await asyncio.to_thread(lambda: list(_reported(home, but))):
        await record(database, row)


def _reported(home: Path, but: str) -> Iterator[StoredExperiment]:
    for path in sorted((home / "reports").glob(f"*/{EXPERIMENT}")):
        with suppress(TidemillError):  # damaged, or of before a rule that it breaks: it could not be run again anyway
            if path.parent.name != but:
                yield row_of(stored_experiment(path), datetime.fromtimestamp(path.stat().st_mtime, UTC))


def content_of(row: StoredExperiment) -> Experiment:
    """InputError for one that does not fit the schema any more."""
    return experiment_from(msgspec.json.decode(row.content), f"The experiment {row.name} ({row.id})")


def fitting(rows: Sequence[StoredExperiment]) -> list[tuple[StoredExperiment, Experiment]]:
    """Each with its content; those that fit the schema no longer are left out, so that they stop no others."""
    found = []
    for row in rows:
        with suppress(InputError):
            found.append((row, content_of(row)))
    return found


def meant(rows: Sequence[StoredExperiment], name: str) -> StoredExperiment:
    """The experiment with this id, or of those with this name the one that was run last, or the one whose id begins so.

    UnknownNameError without one, InputError where several ids begin so.
    """
    for row in rows:  # the one that was run last comes first
        if name in (row.id, row.name):
            return row
    begin = [row for row in rows if name and row.id.startswith(name)]
    if len(begin) > 1:
        raise InputError(f"Several experiments begin with {name}: {', '.join(row.id for row in begin)}. Give more digits.")
    if begin:
        return begin[0]
    names = tuple(dict.fromkeys(row.name for row in rows))
    raise UnknownNameError("experiment that was run", name, names, "Run it first: `tidemill run --experiment FILE`.")


def choice(rows: Sequence[StoredExperiment], name: str) -> str:
    """What a run is of: the id of an experiment that was run, or the name of one that ships.

    name: an id or a name; empty for the one that was run last, the sample where nothing was run yet.
    """
    if not name:
        return next((row.id for row, _ in fitting(rows)), SAMPLE.stem)
    known = any(name in (row.id, row.name) for row in rows)  # the beginning of an id goes after the names that ship
    return name if name in shipped() and not known else meant(rows, name).id


def chosen(rows: Sequence[StoredExperiment], choice: str) -> Experiment:
    """The experiment that a `choice` stands for, unchecked."""
    row = next((row for row in rows if row.id == choice), None)
    return load_experiment(Path(choice)) if row is None else content_of(row)


def in_force(rows: Sequence[StoredExperiment]) -> list[Experiment]:
    """Those that go on, and of each name the one that was run last: the earlier ones were tried and changed."""
    newest = {row.id for row in {row.name: row for row in reversed(rows)}.values()}
    return [experiment for row, experiment in fitting(rows) if row.id in newest or row.tracked_since is not None]


async def start_tracking(database: Database, home: Path, name: str) -> StoredExperiment:
    """Let an experiment, by name, id or the beginning of one, go on with every new bar.

    InputError where no bars come by themselves, and where another experiment of that name goes on already.
    """
    rows = await experiments_of(database, home)
    row = meant(rows, name)
    if not goes_on(content_of(row)):
        raise InputError(
            f"The experiment {row.name} cannot be tracked: its bars end. Give it a source of {', '.join(VENUES)} and no "
            "dataset.end; a changed file in the import folder is run by itself."
        )
    for other in rows:
        if other.name == row.name and other.id != row.id and other.tracked_since is not None:
            raise InputError(
                f"Two different experiments are named {row.name}: {other.id} is tracked, and {row.id} is to be. Give one of "
                f"them another name, or stop the first: `tidemill experiments untrack {other.id}`."
            )
    await track(database, row.id)
    return row


async def stop_tracking(database: Database, home: Path, name: str) -> StoredExperiment:
    """Let an experiment go on no longer, by name, id or the beginning of one.

    InputError when two of that name are tracked, or none.
    """
    rows = await experiments_of(database, home)
    known = meant(rows, name)
    going = [row for row in rows if (row.id == known.id or row.name == name) and row.tracked_since is not None]
    if not going:
        raise InputError(f"The experiment {known.name} is not tracked. `tidemill experiments list` shows which are.")
    if len(going) > 1:
        ids = " and ".join(row.id for row in going)
        raise InputError(f"Different experiments named {name} are tracked: {ids}. Say which one by its id.")
    await untrack(database, [going[0].id])
    return going[0]


def require_own_name(rows: Sequence[StoredExperiment], experiment: Experiment, file: Path) -> None:
    """InputError when another file's experiment, which is another one, has the name of this one, of `file`."""
    own, place = id_of(experiment), origin_of(file)
    for row in rows:
        if row.name == experiment.name and row.id != own and row.origin not in ("", place) and _names(row.origin, row.name):
            raise InputError(
                f"Two different experiments are named {row.name}: that of {row.origin} and that of {place}. Give one of them "
                "another `name`."
            )


def _names(origin: str, name: str) -> bool:
    """Whether a file still holds an experiment of that name: one that was edited, moved or removed owns nothing."""
    with suppress(TidemillError):
        return Path(origin).is_file() and written(Path(origin)).name == name
    return False


def origin_of(file: Path) -> str:
    """How a row names the file that its experiment is of."""
    return str(file.absolute())
