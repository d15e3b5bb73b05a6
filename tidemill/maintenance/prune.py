"""What a home holds that nothing needs any more: named, and taken away when a person says so.

Needed is what these lead to: champions, the current and the one before of each dataset; tracked experiments, and the newest run
of each name; what accounts were told by. Bars and what else came from outside stay, and so do the returns of counted trials,
since the deflation of a Sharpe ratio counts every one; rows of experiments are small and stay.

What says of something that it is there goes before it, so that a kill at any moment leaves what remains whole: reports before
tables, a table of the lake before the rows in Postgres that it answers for, signals before their deciders, indices before
models. The next prune finds what is left over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from tidemill.domain.errors import StopError, TidemillError
from tidemill.domain.experiment import Experiment
from tidemill.durable import remove_folder, sweep
from tidemill.experiments.tracked import content_of, experiments_of
from tidemill.steps.models.risk import risk_key
from tidemill.steps.performance.notebooks import executed_folder
from tidemill.steps.trading.serving import ASKED, SERVED
from tidemill.storage import garbage as rows
from tidemill.storage.experiments import StoredExperiment
from tidemill.storage.garbage import DeciderRow, KeptChampion
from tidemill.study import tables
from tidemill.study.model_index import artifact_folder, index_files, index_in, models_home
from tidemill.study.places import experiment_from, reports_in
from tidemill.study.sources import venue_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

# In the order in which they go.
_OF_STUDY = (
    tables.METRICS,
    tables.DRIFT,
    tables.CHALLENGES,
    tables.ATTRIBUTION,
    tables.ENGINE_SHARES,
    tables.EQUITY,
    tables.POSITIONS,
    tables.TRADES,
    tables.SIGNALS,
    tables.REFUSALS,
    tables.FEATURE_BOUNDS,
    tables.FAILURES,
)
_OF_MODELS = (tables.PREDICTIONS, tables.RISK_SKILL, tables.RISK)
_OF_BARS = (tables.FEATURES, tables.LABELS)
_OTHER_STATES = re.compile(rf"(?:{tables.REGIME}|{tables.SENTIMENT})-")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Something that can go. bytes: on the disk, in Postgres of its rows."""

    kind: str
    name: str
    bytes: int


class Garbage(NamedTuple):
    """What can go: folders of reports and notebooks, (table, key) of the lake, signals by experiment and decider, rows of
    deciders, files of indices, ids of models, folders of feature states. items: all of it by name, for a person.

    books, studies: names of rows in Postgres.
    """

    items: tuple[Item, ...]
    reports: Sequence[Path]
    lake: Sequence[tuple[str, str]]
    signals: frozenset[tuple[str, str]]
    deciders: Sequence[DeciderRow]
    indices: Sequence[Path]
    models: Sequence[str]
    states: Sequence[Path]
    books: frozenset[str]
    studies: frozenset[str]


class _Kept(NamedTuple):
    """Roots, and what they lead to. keys: under which their tables, indices and reports lie."""

    experiments: frozenset[str]
    keys: frozenset[str]
    champions: Sequence[KeptChampion]


def garbage(workspace: Workspace, before: datetime) -> Garbage:
    """What nothing needs and nothing changed since `before`. StopError where it cannot be told what a root needs."""
    kept, home = _kept(workspace, before), models_home(workspace)
    staying, deciders = _deciders(workspace, kept, before)
    lake = _lake(workspace, kept, before)
    indices = [path for path in index_files(home) if _is_old(path, before) and path.stem not in kept.keys]
    books, studies, known = workspace.call(rows.named_rows, workspace.database, before)
    models = {path.name for path in _old(home / "artifacts", kept, before)}
    models |= {name for name in known if not artifact_folder(home, name).is_dir()}
    remaining = kept.keys | _remaining(workspace, lake)
    return _named(
        workspace,
        Garbage(
            items=(),
            reports=[path for folder in _told_in(workspace) for path in _old(folder, kept, before)],
            lake=lake,
            signals=frozenset(map(_asking, deciders)) - frozenset(map(_asking, staying)),
            deciders=deciders,
            indices=indices,
            models=sorted(models - _models_kept(workspace, kept, staying, indices)),
            states=[path for path in _old(_states_in(workspace), kept, before) if not _OTHER_STATES.match(path.name)],
            books=frozenset(books - remaining),
            studies=frozenset(studies - remaining),
        ),
    )


def _named(workspace: Workspace, found: Garbage) -> Garbage:
    """With all of it by name."""
    home = models_home(workspace)
    items = (
        *(_item("report", path) for path in found.reports),
        *_lake_items(workspace, found.lake),
        *_row_items(workspace, found.deciders, found.signals),
        *(_item("model index", path) for path in found.indices),
        *(_item("model", artifact_folder(home, name)) for name in found.models),
        *(_item("feature state", path) for path in found.states),
    )
    return found._replace(items=items)


def remove(workspace: Workspace, found: Garbage) -> None:
    """Take it away. Killed at any moment, it leaves what remains whole."""
    database, home = workspace.database, models_home(workspace)
    for folder in found.reports:
        remove_folder(folder)
    _drop(workspace, found.lake, _OF_STUDY)
    workspace.call(rows.drop_rows, database, "equity", "account", found.studies)
    _forget_served(workspace, found.signals)
    workspace.call(rows.drop_deciders, database, found.signals, found.deciders)
    for path in found.indices:
        path.unlink(missing_ok=True)
    _drop(workspace, found.lake, _OF_MODELS)
    workspace.call(rows.drop_rows, database, "predictions", "book", found.books)
    workspace.call(rows.drop_rows, database, "models", "model_id", found.models)
    for name in found.models:
        remove_folder(artifact_folder(home, name))
    _drop(workspace, found.lake, _OF_BARS)
    for folder in found.states:
        remove_folder(folder)
    for parent in (
        reports_in(workspace.settings),
        executed_folder(workspace.settings),
        home / "artifacts",
        _states_in(workspace),
    ):
        sweep(parent)


def _kept(workspace: Workspace, before: datetime) -> _Kept:
    known = workspace.call(experiments_of, workspace.database, workspace.settings.home)
    champions = workspace.call(rows.kept_champions, workspace.database)
    roots = _root_rows(known, before)
    keys = {key for row in roots for key in _keys_of(workspace, row)}
    for one in champions:
        keys |= _keys(workspace, experiment_from(msgspec.json.decode(one.experiment), "The experiment of a champion"))
    return _Kept(frozenset(row.id for row in roots), frozenset(keys), champions)


def _root_rows(known: Sequence[StoredExperiment], before: datetime) -> list[StoredExperiment]:
    """Tracked ones, of each name the one that was run last, and what was run lately."""
    newest = {row.id for row in {row.name: row for row in reversed(known)}.values()}
    return [row for row in known if row.id in newest or row.tracked_since is not None or row.last_run_at >= before]


def _keys_of(workspace: Workspace, row: StoredExperiment) -> set[str]:
    try:
        return _keys(workspace, content_of(row))
    except (TidemillError, OSError) as exc:
        raise StopError(
            f"Nothing was removed: what the experiment {row.name} ({row.id}) needs cannot be told: {exc} Put back what it "
            "reads, or run another experiment under its name."
        ) from exc


def _keys(workspace: Workspace, experiment: Experiment) -> set[str]:
    """Under which names what an experiment makes lies."""
    study = Study(workspace, experiment, venue_of(experiment.dataset, workspace.settings))
    engines = (study.engine_key(spec) for spec in study.experiment.engines)
    risk = () if study.experiment.risk is None else (risk_key(study),)
    return {study.key, study.features_key, study.labels_key, study.ensemble_key, *engines, *risk}


def _told_to_accounts(workspace: Workspace) -> set[str]:
    """Deciders that some account was told by. Accounts with a position or an open order join here as soon as there are any."""
    return workspace.call(rows.deciders_of_orders, workspace.database)


def _deciders(workspace: Workspace, kept: _Kept, before: datetime) -> tuple[list[DeciderRow], tuple[DeciderRow, ...]]:
    """Rows of deciders that stay, with what they succeed, and those that can go."""
    known = workspace.call(rows.decider_rows, workspace.database)
    named, asked = {one.decider for one in kept.champions} | _told_to_accounts(workspace), _asked_in_lake(workspace, kept)
    staying = [row for row in known if row.id in named or row.changed_at >= before or _decides(row, kept, asked)]
    while found := _succeeded(known, staying):
        staying += found
    stays = set(map(_place, staying))
    return staying, tuple(row for row in known if _place(row) not in stays)


def _succeeded(known: Sequence[DeciderRow], staying: Sequence[DeciderRow]) -> list[DeciderRow]:
    """What deciders that stay were renewed from, and is not among them."""
    earlier = {row.succeeds for row in staying} - {row.id for row in staying}
    return [row for row in known if row.id in earlier]


def _asking(row: DeciderRow) -> tuple[str, str]:
    """By what signals name it."""
    return row.experiment, row.id


def _place(row: DeciderRow) -> tuple[str, str, str, datetime]:
    return row.id, row.experiment, row.made_for, row.valid_from


def _decides(row: DeciderRow, kept: _Kept, asked: set[str]) -> bool:
    """Whether it is in force for an experiment that stays, or what is stored of that still names it."""
    in_force = row.superseded_at is None and row.made_for == "run"
    return row.experiment in kept.experiments and (in_force or row.id in asked)


def _asked_in_lake(workspace: Workspace, kept: _Kept) -> set[str]:
    """Deciders that signals in the lake are of, where they stay."""
    keys = kept.keys & set(workspace.lake.datasets(tables.SIGNALS))
    held = (one for key in keys for one in workspace.lake.manifests(tables.SIGNALS, key).values())
    return {decider for one in held for decider in one.metadata.get(ASKED, {})}


def _models_kept(workspace: Workspace, kept: _Kept, deciders: Sequence[DeciderRow], indices: Sequence[Path]) -> set[str]:
    """Ids of the models that something which stays refers to. deciders: that stay. indices: that go."""
    found = {name for one in kept.champions for name in one.models}
    for row in deciders:
        made = msgspec.json.decode(row.content, type=_Made)
        found |= {*made.models.values(), made.ensemble}
    for path in index_files(models_home(workspace)):
        if path not in indices:
            found |= {entry.model_id for entry in index_in(path).folds}
    return found


class _Made(msgspec.Struct):
    models: dict[str, str] = {}
    ensemble: str = ""


def _lake(workspace: Workspace, kept: _Kept, before: datetime) -> list[tuple[str, str]]:
    return [
        (table, one.dataset)
        for table in (*_OF_STUDY, *_OF_MODELS, *_OF_BARS)
        for one in workspace.lake.footprints(table)
        if one.dataset not in kept.keys and one.changed_at < before.timestamp()
    ]


def _lake_items(workspace: Workspace, going: Sequence[tuple[str, str]]) -> Iterator[Item]:
    sizes = {(table, one.dataset): one.bytes for table in dict(going) for one in workspace.lake.footprints(table)}
    return (Item(kind=f"table {table}", name=key, bytes=sizes[table, key]) for table, key in going)


def _remaining(workspace: Workspace, going: Sequence[tuple[str, str]]) -> set[str]:
    """Keys of the lake under which something stays."""
    every = ((table, one.dataset) for table in (*_OF_STUDY, *_OF_MODELS) for one in workspace.lake.footprints(table))
    return {key for table, key in every if (table, key) not in set(going)}


def _drop(workspace: Workspace, found: Iterable[tuple[str, str]], chosen: Sequence[str]) -> None:
    for table, key in found:
        if table in chosen:
            workspace.lake.drop(table, key)


def _forget_served(workspace: Workspace, signals: frozenset[tuple[str, str]]) -> None:
    """What stays of the lake no longer says that these signals are in Postgres."""
    lake = workspace.lake
    for key in lake.datasets(tables.SIGNALS):
        for held in lake.manifests(tables.SIGNALS, key).values():
            served: dict[str, dict[str, str]] = held.metadata.get(SERVED, {})
            left = {name: said for name, said in served.items() if not any((name, one) in signals for one in said)}
            if left != served:
                lake.annotate(held, {**held.metadata, SERVED: left})


def _row_items(workspace: Workspace, deciders: Sequence[DeciderRow], signals: frozenset[tuple[str, str]]) -> Iterator[Item]:
    sizes = workspace.call(rows.signal_sizes, workspace.database)
    for pair in sorted(signals):
        if pair in sizes:
            yield Item(kind="signals", name=f"{pair[0]} {pair[1]}", bytes=sizes[pair])
    for row in deciders:
        yield Item(kind="decider", name=row.id, bytes=row.bytes)


def _told_in(workspace: Workspace) -> tuple[Path, Path]:
    """Where reports and executed notebooks lie, a folder in each for each study."""
    return reports_in(workspace.settings), executed_folder(workspace.settings)


def _states_in(workspace: Workspace) -> Path:
    return workspace.settings.home / "state"


def _old(folder: Path, kept: _Kept, before: datetime) -> list[Path]:
    """Folders in it that are named by no key which stays, and hold nothing newer."""
    found = sorted(path for path in folder.glob("[!.]*") if path.is_dir() and path.name not in kept.keys)
    return [path for path in found if all(_is_old(each, before) for each in (path, *path.rglob("*")))]


def _is_old(path: Path, before: datetime) -> bool:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) < before


def _item(kind: str, path: Path) -> Item:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return Item(kind=kind, name=path.stem if path.is_file() else path.name, bytes=sum(each.stat().st_size for each in files))
