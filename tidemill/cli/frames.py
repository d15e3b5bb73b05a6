"""Frames in and out of commands: Parquet, CSV, Arrow by the ending of the name."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError

if TYPE_CHECKING:
    import polars as pl


def read_frame(path: Path, what: str) -> "pl.DataFrame":
    """A Parquet or CSV file as it is. InputError for a missing, unreadable or empty one."""
    import polars as pl

    if not path.is_file():
        raise InputError(f"The {what} {path} does not exist or is not a file. Check the path.")
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, try_parse_dates=True, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as exc:
        raise InputError(f"The {what} {path} cannot be read: {str(exc).splitlines()[0]}.") from exc
    if frame.is_empty():
        raise InputError(f"The {what} {path} holds no rows.")
    return frame


def require_columns(frame: "pl.DataFrame", columns: tuple[str, ...], path: Path) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(frame.columns)}.")


def write_frame(frame: "pl.DataFrame", path: Path) -> None:
    """Written beside the target and renamed, so that a failed write leaves what was there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.suffix == ".csv":
            frame.write_csv(temporary)
        elif path.suffix in (".arrow", ".ipc"):
            frame.write_ipc(temporary)
        else:
            frame.write_parquet(temporary, compression="zstd")
        os.replace(temporary, path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {exc.strerror}. Free some space or choose another --output.") from exc
