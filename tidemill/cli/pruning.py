"""`tidemill data prune`: what nothing needs any more named, and removed."""

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common.output import counted, json_option, write_json, write_table
from tidemill.domain.errors import StopError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidemill.maintenance.prune import Item

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_LONGEST = 36_500
_SHOWN = 20


class _Age(click.ParamType[timedelta]):
    """A span of time such as 30d, 12h or 4w."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        number, unit = value[:-1], value[-1:]
        if not (number.isascii() and number.isdigit() and unit in _UNITS and int(number) <= _LONGEST):
            self.fail(f"{value!r} is not an age. Write 30d, 12h or 4w.", param, ctx)
        return timedelta(**{_UNITS[unit]: int(number)})


@click.command()
@click.option("--older-than", "age", type=_Age(), default="30d", show_default=True, help="Unchanged for so long: 30d, 12h, 4w.")
@click.option("--yes", is_flag=True, help="Remove it without asking.")
@json_option
def prune(age: timedelta, yes: bool, as_json: bool) -> None:
    """Name what nothing needs any more, and remove it when you say so.

    Kept are champions (the current and the one before), tracked experiments, the newest run of each experiment, what accounts
    trade by, everything that came from a source, and every counted trial. Removed results are made again by `tidemill run`.
    """
    from tidemill.cli.common.progress import progress
    from tidemill.cli.common.session import workspace
    from tidemill.maintenance.prune import garbage, remove

    before = datetime.now(UTC) - age
    with workspace() as opened:
        with progress("Looking for what nothing needs"):
            found = garbage(opened, before)
        if not as_json:
            _tell(found.items)
        asked = not yes and not as_json and bool(found.items) and _confirmed()
        if asked and garbage(opened, before) != found:
            raise StopError("Something of it changed meanwhile, so nothing was removed. Look at it again.")
        if yes or asked:
            with progress("Removing it"):
                remove(opened, found)
    if as_json:
        write_json({"removed": yes, "items": found.items})
    elif found.items and (yes or asked):
        click.echo(f"Removed: {_size(sum(item.bytes for item in found.items))}.")


def _confirmed() -> bool:
    """Whether a person says so; nobody can be asked in a pipe."""
    if not sys.stdin.isatty():
        click.echo("Nothing was removed. --yes removes it.")
        return False
    return click.confirm("Remove all of this?", err=True)


def _tell(items: "Sequence[Item]") -> None:
    if not items:
        click.echo("There is nothing to remove.")
        return
    shown: Counter[str] = Counter()
    rows = []
    for item in items:
        shown[item.kind] += 1
        if shown[item.kind] <= _SHOWN:
            rows.append((item.kind, item.name, _size(item.bytes)))
    write_table("", ("what", "name", "size"), rows)
    more = sum(count - _SHOWN for count in shown.values() if count > _SHOWN)
    if more:
        click.echo(f"{more:,} more are not shown; --json shows them.")
    click.echo(f"{counted(len(items), 'item')}, {_size(sum(item.bytes for item in items))}.")


def _size(count: int) -> str:
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_:
            return f"{count / bytes_:,.1f} {unit}"
    return counted(count, "byte")
