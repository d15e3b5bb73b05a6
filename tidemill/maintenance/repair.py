"""Repair of a home: what is damaged in it is made again from Postgres or from its data, or left for the next run to make."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from tidemill.config import Settings
from tidemill.domain.errors import IntegrityError, TidemillError
from tidemill.domain.intervals import Interval
from tidemill.domain.months import month_end, month_start
from tidemill.durable import is_sealed, write_sealed
from tidemill.maintenance.rebuild import restore
from tidemill.models.artifact import MANIFEST_FILE, load, read_manifest
from tidemill.storage.home_check import broken, mend, seal_all, sweep_all
from tidemill.storage.lake import Lake
from tidemill.storage.lake_check import Damage, at_a_glance, damaged
from tidemill.storage.trials import RETURNS
from tidemill.study.model_index import artifact_folder, index_in, models_home
from tidemill.study.tables import BARS, FLAGS, IMPORTS
from tidemill.study.workspace import Workspace

_MANIFEST = "SELECT manifest::text FROM models WHERE model_id = $1"
_CHAMPIONS = "SELECT DISTINCT value FROM champions, jsonb_each_text(models) WHERE value = $1"
Outcome = Literal["restored", "removed", "lost"]


class Mended(msgspec.Struct, frozen=True, kw_only=True):
    """A file or a model's folder that was damaged. path: inside the home."""

    path: str
    why: str
    outcome: Outcome


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """checked: partitions read. restored: months of bars written again from Postgres. removed: what the next run makes again.

    lost: what nothing else holds, the returns of counted trials; it is taken away, and evaluating them again stores it.
    files: what was damaged beside the lake.
    """

    checked: int
    restored: tuple[Damage, ...] = ()
    removed: tuple[Damage, ...] = ()
    lost: tuple[Damage, ...] = ()
    files: tuple[Mended, ...] = ()


def repair(workspace: Workspace) -> Repaired:
    """Read all that is stored in the home and mend what is damaged. What is whole stays; files of versions before checksums
    get theirs.
    """
    home = workspace.settings.home
    sweep_all(home)
    done = repair_lake(workspace)
    files = (*_mended_files(home), *_mended_models(workspace))
    seal_all(home)
    return msgspec.structs.replace(done, files=files)


def damage_at_a_glance(settings: Settings) -> list[str]:
    """What is damaged, without reading the rows of the lake or the weights of models; a sentence each. Needs no server."""
    wrong = [f"{one.table} {one.dataset} {one.partition}: {one.why}" for one in at_a_glance(Lake(settings.lake))[1]]
    wrong += [f"{found.path.relative_to(settings.home)}: {found.why}" for found in broken(settings.home)]
    for folder in _model_folders(settings.home):
        try:
            stated = read_manifest(folder)
        except IntegrityError as exc:
            wrong.append(str(exc))
            continue
        weights = folder / stated.manifest.weights_file
        if not weights.is_file() or weights.stat().st_size != stated.weights_bytes:
            wrong.append(f"{weights.relative_to(settings.home)}: it is gone or cut off")
    return wrong


def repair_lake(workspace: Workspace) -> Repaired:
    """Read the whole lake and mend what is damaged. Nothing that is whole is touched."""
    checked, found = damaged(workspace.lake)
    restored, removed, lost = [], [], []
    for one in found:
        if one.table == RETURNS:
            workspace.lake.drop(one.table, one.dataset, one.partition)  # read as gone, where damage would stop every judgement
            lost.append(one)
        elif one.table == BARS and _restored(workspace, one):
            restored.append(one)
        else:
            workspace.lake.drop(one.table, one.dataset, one.partition)
            if one.table in (BARS, FLAGS):
                workspace.lake.drop(IMPORTS, one.dataset)  # so the next run reads the source again
            removed.append(one)
    return Repaired(checked=checked, restored=tuple(restored), removed=tuple(removed), lost=tuple(lost))


def _restored(workspace: Workspace, one: Damage) -> bool:
    """Write a month of bars again as Postgres has it; False where Postgres has none of it."""
    venue, _, text = one.dataset.rpartition(".")
    interval, store = Interval.parse(text), workspace.store
    sizes = workspace.call(store.month_sizes, venue, interval)
    if one.partition not in sizes:
        return False
    start, end = month_start(one.partition), month_end(one.partition)
    rows = workspace.call(store.read, venue, interval, start=start, end=end)
    # A file of the same content would be kept as it lies there, damage and all.
    workspace.lake.drop(BARS, one.dataset, one.partition)
    workspace.lake.write(BARS, one.dataset, one.partition, rows, metadata={"version": sizes[one.partition][0]})
    return True


def _mended_files(home: Path) -> Iterator[Mended]:
    for found in broken(home):
        mend(found)
        yield _mended(home, found.path, found.why, "removed")
    for path in _indexes(home):
        try:
            index_in(path)
        except IntegrityError:
            path.unlink()
            yield _mended(home, path, "it is not an index", "removed")


def _mended_models(workspace: Workspace) -> Iterator[Mended]:
    home = workspace.settings.home
    wanted = {artifact_folder(models_home(workspace), name) for path in _indexes(home) for name in _names(path)}
    for folder in sorted(wanted | set(_model_folders(home))):
        try:
            load(folder)
            _sealed_manifest(folder)
        except TidemillError as exc:
            yield _mended(home, folder, _reason(exc), _model_mended(workspace, folder))


def _model_mended(workspace: Workspace, folder: Path) -> Outcome:
    """Its manifest comes from Postgres where it is damaged; its weights are trained again where their data are still there.

    Else the indexes that name it go, so that the next run trains it; one that only a champion names is lost, and stays.
    """
    with suppress(TidemillError):
        if not _manifest_reads(folder):
            _restore_manifest(workspace, folder)
        if _loads(folder) or restore(workspace, folder.name).same:
            return "restored"
    naming = [path for path in _indexes(workspace.settings.home) if folder.name in _names(path)]
    if not naming and workspace.call(workspace.database.fetchval, _CHAMPIONS, folder.name) is not None:
        return "lost"
    for path in naming:
        path.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return "removed"


def _manifest_reads(folder: Path) -> bool:
    with suppress(IntegrityError):
        return bool(read_manifest(folder))
    return False


def _loads(folder: Path) -> bool:
    with suppress(TidemillError):
        return bool(load(folder))
    return False


def _restore_manifest(workspace: Workspace, folder: Path) -> None:
    text = workspace.call(workspace.database.fetchval, _MANIFEST, folder.name)
    if text is not None:
        write_sealed(folder / MANIFEST_FILE, str(text).encode())


def _sealed_manifest(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    content = path.read_bytes()
    if not is_sealed(content):
        write_sealed(path, content)


def _model_folders(home: Path) -> list[Path]:
    return sorted(path for path in (home / "models" / "artifacts").glob("[!.]*") if path.is_dir())


def _indexes(home: Path) -> list[Path]:
    return sorted((home / "models" / "index").glob("*.json"))


def _reason(exc: TidemillError) -> str:
    """What is wrong with a model, without where it lies and what to do."""
    return str(exc).partition(" is refused: ")[2].partition(". Mend")[0] or "its folder is gone"


def _names(index: Path) -> set[str]:
    """Models that an index names."""
    return {entry.model_id for entry in index_in(index).folds}


def _mended(home: Path, path: Path, why: str, outcome: Outcome) -> Mended:
    return Mended(path=str(path.relative_to(home)), why=why, outcome=outcome)
