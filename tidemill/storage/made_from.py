"""Notes beside files that people read (reports, notebooks): what they were made from, and the checksums of what was made."""

from pathlib import Path
from typing import TypeVar

import msgspec

from tidemill.domain.errors import IntegrityError
from tidemill.durable import checksum, damaged, is_sealed, read_sealed, sweep, write_sealed

T = TypeVar("T")


class _Note(msgspec.Struct, frozen=True):
    inputs: str
    files: dict[str, str]


def write_note(note: Path, inputs: str, *files: Path) -> None:
    """inputs: fingerprint of what `files` were made from. They lie beside the note and were written before it."""
    write_sealed(note, msgspec.json.encode(_Note(inputs, {file.name: checksum(file) for file in files})))
    sweep(note.parent)


def is_made_from(note: Path, inputs: str) -> bool:
    """Whether the files of a note are there, whole, and made from `inputs`."""
    made = _read(note)
    return made is not None and made.inputs == inputs and not _harmed(note, made)


def harmed(note: Path) -> list[str]:
    """Names of the files that are gone or other than they were made, the note itself among them.

    A note of a version that noted the inputs alone says nothing of them; what it is beside is made again by the next run.
    """
    made = _read(note)
    if made is None:
        return [note.name] if is_sealed(note.read_bytes()) else []
    return _harmed(note, made)


def read_made(note: Path, file: Path, kind: type[T]) -> T:
    """A JSON file beside its note. IntegrityError when it is other than it was made; without a note it is as it is."""
    made = _read(note)
    if made is not None and file.name in _harmed(note, made):
        raise damaged(file)
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except msgspec.DecodeError as exc:
        raise damaged(file) from exc


def _harmed(note: Path, made: _Note) -> list[str]:
    return [name for name, sum_ in made.files.items() if not _is(note.with_name(name), sum_)]


def _is(file: Path, sum_: str) -> bool:
    return file.is_file() and checksum(file) == sum_


def _read(note: Path) -> _Note | None:
    """None where there is none, or a damaged one, or one of a version that noted the inputs alone: it costs time."""
    try:
        return msgspec.json.decode(read_sealed(note), type=_Note)
    except (FileNotFoundError, IntegrityError, msgspec.DecodeError):
        return None
