"""Argument types shared by commands: intervals, moments, files that must be read, files that will be written."""

from datetime import UTC, datetime
from pathlib import Path

import click

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval


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
        except ValueError:
            self.fail(f"{value!r} is not a date. Write it as 2024-01-31 or 2024-01-31T09:30.", param, ctx)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


class SymbolsType(click.ParamType[tuple[str, ...]]):
    """Symbols separated by commas."""

    name = "symbols"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))


INTERVAL = IntervalType()
MOMENT = MomentType()
SYMBOLS = SymbolsType()


def existing(path: Path, what: str) -> Path:
    """`path` if it can be read, else InputError."""
    if not path.exists():
        raise InputError(f"The {what} {path} does not exist. Check the path.")
    return path


def writable(path: Path) -> Path:
    """`path` if its folder exists, else InputError: a result is not lost for want of a folder at the end of a long run."""
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist. Create it or choose another --output.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; --output names a file.")
    return path
