"""Frames that commands write: CSV or Arrow by the ending of the name, Parquet else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError

if TYPE_CHECKING:
    import polars as pl


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Written beside the target and renamed, so that a failed write leaves what was there."""
    import polars as pl

    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    form = path.suffix.lower()
    try:
        if form == ".csv":
            frame.write_csv(temporary)
        elif form in (".arrow", ".ipc"):
            frame.write_ipc(temporary)
        else:
            frame.write_parquet(temporary, compression="zstd")
        os.replace(temporary, path)
    except (OSError, pl.exceptions.PolarsError) as exc:
        temporary.unlink(missing_ok=True)
        reason = getattr(exc, "strerror", None) or str(exc).splitlines()[0]
        raise InputError(f"{path} cannot be written: {reason}. Free some space or choose another --output.") from exc
