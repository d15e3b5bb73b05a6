"""Data files of a module, such as `data("sectors.csv")`: what they hold is part of what the module is, and bounded.

The program takes their digests and the process that runs the module reads them, so a file that changes in between is refused.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError

if TYPE_CHECKING:
    import polars as pl

MAXIMUM_BYTES = 64 << 20


def place(name: str, file: Path) -> Path:
    """Where the data file `name` of a module lies: relative to the module."""
    return (file.parent / name).absolute()


def digests(names: Iterable[str], file: Path) -> dict[str, str]:
    """Name → digest of its content. InputError for a file that is absent, too large, or of a kind that is not read."""
    return {name: _digest(_content(name, file)) for name in names}


def read(name: str, file: Path, expected: str) -> pl.DataFrame:
    """The frame in a data file. InputError when its content has another digest, or cannot be read."""
    content = _content(name, file)
    if _digest(content) != expected:
        raise InputError(f"The data file {name} was changed while it was in use. Start again.")
    try:
        return readers()[Path(name).suffix.lower()](io.BytesIO(content))
    except Exception as exc:  # the library may raise anything for bytes that are no such file
        said = " ".join(str(exc).split())[:200].rstrip(".")
        raise InputError(f"The data file {name} cannot be read: {said}.") from exc


@cache
def readers() -> dict[str, Callable[[io.BytesIO], pl.DataFrame]]:
    """What reads a file by its ending; asked for before the readers of polars refuse."""
    import polars as pl

    csv, parquet, arrow = pl.read_csv, pl.read_parquet, pl.read_ipc
    return {
        ".csv": lambda content: csv(content, try_parse_dates=True, infer_schema_length=None),
        ".parquet": lambda content: parquet(content),
        ".arrow": lambda content: arrow(content),
    }


_ENDINGS = (".csv", ".parquet", ".arrow")


def _content(name: str, file: Path) -> bytes:
    path = place(name, file)
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"The data file {name} of {file.name} must end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}.")
    try:
        with path.open("rb") as source:
            content = source.read(MAXIMUM_BYTES + 1)
    except OSError as exc:
        raise InputError(f"The data file {path} of {file.name} cannot be read ({exc.strerror}). Put it there.") from exc
    if len(content) > MAXIMUM_BYTES:
        raise InputError(f"The data file {name} of {file.name} is larger than {MAXIMUM_BYTES >> 20} MiB. Give a smaller one.")
    return content


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
