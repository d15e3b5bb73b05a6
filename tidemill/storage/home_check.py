"""The small files of a home beside the lake: which are not what was written, and what becomes of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tidemill.durable import TEMPORARY, is_sealed, sweep, unseal, write_sealed
from tidemill.storage import journal
from tidemill.storage.made_from import harmed

# Whatever is here and damaged is removed: the steps make it again.
_SEALED = ("models/index/*.json", "judged/*.json", "state/*/*.state")
_NOTES = ("reports/*/made-from.txt", "notebooks/*/*.made-from")
_JOURNALS = "search/*.journal"
_WRITTEN_TO = ("models/index", "models/artifacts", "judged", "state/*", "reports/*", "notebooks/*", "search")
# Temporary names of versions before `durable`, whose writers held no lock.
_OLD_LEFTOVERS = (
    "models/index/*.partial",
    "models/index/*.scored",
    "models/index/*.forecast",
    "judged/*.partial",
    "state/*/*.partial",
)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A damaged file, and the other ones that go with it."""

    path: Path
    why: str
    others: tuple[Path, ...] = ()


def broken(home: Path) -> Iterator[Found]:
    """Every file is read whole; they are small."""
    for path in _matching(home, *_SEALED):
        content = unseal(path.read_bytes())
        if content is None or (path.suffix != ".state" and not _is_json(content)):
            yield Found(path=path, why="it holds other bytes than were written")
    for note in _matching(home, *_NOTES):
        names = harmed(note)
        if names:
            yield Found(path=note, why=f"{', '.join(names)} is not what was made", others=tuple(map(note.with_name, names)))
    for path in _matching(home, _JOURNALS):
        size = journal.damage(path)
        if size:
            yield Found(path=path, why=f"its last {size:,} bytes are not lines that were written")


def mend(found: Found) -> None:
    """Take away what is damaged: the next run makes it again; of a journal only what comes after the last whole line."""
    if found.path.suffix == ".journal":
        journal.cut(found.path)
        return
    for path in (found.path, *found.others):
        path.unlink(missing_ok=True)


def seal_all(home: Path) -> None:
    """Give files of earlier versions their checksum. States go: whether one of them was damaged nobody can tell."""
    for path in _matching(home, *_SEALED):
        content = path.read_bytes()
        if is_sealed(content):
            continue
        if path.suffix == ".state":
            path.unlink()
        else:
            write_sealed(path, content)


def sweep_all(home: Path) -> None:
    """Remove what dead writers left."""
    for folder in _matching(home, *_WRITTEN_TO):
        sweep(folder)
    for leftover in _matching(home, *_OLD_LEFTOVERS):
        leftover.unlink(missing_ok=True)
    for folder in _matching(home, "models/artifacts/.*"):
        _remove_old(folder)


def _remove_old(leftover: Path) -> None:
    """A folder in which an earlier version was making a model, or one lay aside while another took its place."""
    name, aside, _ = leftover.name[1:].rpartition(".old.")
    if aside and (leftover / "old").is_dir() and not leftover.with_name(name).exists():
        (leftover / "old").rename(leftover.with_name(name))
    if not leftover.name.startswith(TEMPORARY):
        shutil.rmtree(leftover, ignore_errors=True)


def _matching(home: Path, *patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(home.glob(pattern))]


def _is_json(content: bytes) -> bool:
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError:
        return False
    return True
