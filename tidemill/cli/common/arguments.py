"""Argument types shared by commands: intervals, moments, symbols; files that must be read, files that will be written."""

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import valid_symbol


class IntervalType(click.ParamType[Interval]):
    name = "interval"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Interval:
        if isinstance(value, Interval):
            return value
        try:
            return Interval.parse(str(value))
        except InputError as exc:
            self.fail(str(exc), param, ctx)


class MomentType(click.ParamType[datetime]):
    """An ISO date or time; without a zone it is UTC."""

    name = "date"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            parsed = datetime.fromisoformat(str(value))
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a date. Write it as 2024-01-31 or 2024-01-31T09:30.", param, ctx)


class SymbolsType(click.ParamType[tuple[str, ...]]):
    """Symbols separated by commas."""

    name = "symbols"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip())
        try:
            return tuple(valid_symbol(name) for name in names)
        except InputError as exc:
            self.fail(str(exc), param, ctx)


INTERVAL = IntervalType()
MOMENT = MomentType()
SYMBOLS = SymbolsType()


def ordered(start: datetime | None, end: datetime | None) -> None:
    """InputError unless `start` lies before `end` and not in the future."""
    if start is not None and end is not None and end <= start:
        raise InputError(f"The end {end:%Y-%m-%d %H:%M} is not after the start {start:%Y-%m-%d %H:%M}. Swap them.")
    if start is not None and start > datetime.now(UTC):
        raise InputError(f"The start {start:%Y-%m-%d} is in the future, where there are no bars yet. Give an earlier date.")


def existing(path: Path, what: str) -> Path:
    """`path` if it is there, else InputError."""
    if not path.exists():
        raise InputError(f"The {what} {path} does not exist. Check the path.")
    return path


_FORMATS = (".parquet", ".pq", ".csv", ".arrow", ".ipc", "")


def writable(path: Path) -> Path:
    """`path` if a frame can be written there, else InputError: found out before a long run, not at its end."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; --output names a file.")
    if path.suffix.lower() not in _FORMATS:
        known = ", ".join(ending for ending in _FORMATS if ending)
        raise InputError(f"{path.suffix} is not a format that can be written. Use a file name that ends in {known}.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist. Create it or choose another --output.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"The folder {path.parent} cannot be written. Change its permissions or choose another --output.")
    return path


def writable_folder(path: Path) -> Path:
    """`path` if it is or can be made a folder to write into, else InputError."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file; --output names a folder. Choose another one.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"The folder {there} cannot be written. Change its permissions or choose another --output.")
    return path


experiment_option = click.option(
    "--experiment",
    "file",
    type=click.Path(path_type=Path),
    help="YAML file (docs/experiment.schema.json), or one that ships: sample, all_engines. What other options say of the "
    "dataset replaces what it says.",
)
