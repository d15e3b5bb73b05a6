"""How commands speak: JSON for programs, tables for people, one sentence for a failure."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import msgspec

from tidemill.domain.errors import TidemillError

json_option = click.option("--json", "as_json", is_flag=True, help="Answer one JSON object on stdout.")


def fail(error: TidemillError) -> int:
    """One sentence on stderr; the exit code of a failure."""
    click.echo(f"Error: {error}", err=True)
    return 1


def _plain(value: object) -> object:
    """What JSON cannot say: non-finite numbers become null, times ISO text."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.structs.asdict(value))
    return value


def write_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(_plain(value), enc_hook=str), indent=2).decode() + "\n")


def number(value: Any, digits: int = 2) -> str:
    """A number as a person reads it; a dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def write_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers to the right. rich is imported here since it costs 60 ms."""
    from rich.console import Console
    from rich.table import Table

    rows = [list(row) for row in rows]
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(number(cell) if isinstance(cell, int | float) or cell is None else str(cell) for cell in row))
    # A pipe has no width: give it one that keeps each row on its line.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
