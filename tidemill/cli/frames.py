"""Frames that commands write: CSV or Arrow by the ending of the name, Parquet else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError
from tidemill.durable import replacing

if TYPE_CHECKING:
    import polars as pl


_CSV, _ARROW = (".csv",), (".arrow", ".ipc")


def is_parquet(path: Path) -> bool:
    """Whether a frame goes to `path` as Parquet."""
    return path.suffix.lower() not in _CSV + _ARROW


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Written beside the target and renamed, so that a failed write leaves what was there."""

    def write(temporary: Path) -> None:
        if is_parquet(path):
            frame.write_parquet(temporary, compression="zstd")
        elif path.suffix.lower() in _CSV:
            frame.write_csv(temporary)
        else:
            frame.write_ipc(temporary)

    replace_with(path, write)


def replace_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then rename it. InputError when it cannot be written."""
    import polars as pl

    try:
        with replacing(path) as temporary:
            write(temporary)
    except (OSError, pl.exceptions.PolarsError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc).splitlines()[0]
        raise InputError(f"{path} cannot be written: {reason}. Free some space or choose another --output.") from exc
