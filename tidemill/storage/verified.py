"""Files of the lake are what was written: each is read through once, and again when its inode, size or time has changed."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.durable import checksum
from tidemill.storage.content import content_version

_FEW = 4  # files; below this threads cost more than they save
# Path → inode, size, time of the file as this process found it whole.
_found: dict[Path, tuple[int, int, int]] = {}


class Stored(NamedTuple):
    """A file as its manifest has it. checksum: empty in a manifest of before checksums, then `version` is that of the rows."""

    path: Path
    size: int
    checksum: str
    version: str


def broken(files: Sequence[Stored]) -> list[Stored]:
    """Those that are gone, cut off or hold other bytes than were written."""
    states = [_state(file.path) for file in files]
    wrong = [file for file, state in zip(files, states, strict=True) if state is None or state[1] != file.size]
    new = [file for file, state in zip(files, states, strict=True) if _found.get(file.path) != state]
    return wrong or [file for file, whole in zip(new, _each_whole(new), strict=True) if not whole]


def remember(path: Path) -> None:
    """This process wrote the file and knows its checksum: it need not be read through again."""
    state = _state(path)
    if state is not None:
        _found[path] = state


def _each_whole(files: Sequence[Stored]) -> list[bool]:
    """Read side by side, as the interpreter lock is let go of."""
    if len(files) < _FEW:
        return [_whole(file) for file in files]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(_whole, files))


def _whole(file: Stored) -> bool:
    state = _state(file.path)
    try:
        whole = checksum(file.path) == file.checksum if file.checksum else _version(file.path) == file.version
    except (OSError, InputError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False
    if whole and state is not None:
        _found[file.path] = state
    return whole


def _version(path: Path) -> str:
    """Slower than a checksum, about as long as reading the rows, and as sure."""
    return content_version(pl.read_parquet(path, hive_partitioning=False))


def _state(path: Path) -> tuple[int, int, int] | None:
    """None where there is no file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
