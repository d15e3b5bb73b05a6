"""How commands speak: JSON for programs, tables for people, one sentence for a failure."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import msgspec

from tidemill.domain.errors import TidemillError

json_option = click.option("--json", "as_json", is_flag=True, help="Answer JSON on stdout, and nothing else there.")

_GAP = "  "
_NARROWEST = 20


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


def counted(count: int, noun: str) -> str:
    """`1 symbol`, `1,200 symbols`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def price(value: float) -> str:
    """A price or volume with all the digits that matter and no others."""
    text = f"{value:,.6f}" if abs(value) >= 1.0 else f"{value:.12f}"
    return text.rstrip("0").rstrip(".")


def write_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers to the right, the last column wrapped where a terminal is too narrow.

    Made by hand: the import of a library for it costs more than most commands take.
    """
    given = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in given]
    right = [_is_numeric([row[at] for row in given]) for at in range(len(columns))]
    widths = [max([len(column), *(len(row[at]) for row in cells)]) for at, column in enumerate(columns)]
    widths[-1] = _last_width(widths, wraps=not right[-1])
    lines = [title] if title else []
    lines += [_line([columns], widths, right), _GAP.join("─" * width for width in widths)]
    lines += [_line(_wrapped(row, widths[-1]), widths, right) for row in cells]
    sys.stdout.write("\n".join(lines) + "\n")


def _cell(value: object) -> str:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return number(value)
    return " ".join(str(value).split())


def _is_numeric(values: list[object]) -> bool:
    """Whether all are numbers, also ones written out, such as 12.5 % or 1,234."""
    told = [value for value in values if value is not None and value not in ("–", "")]
    return bool(told) and all(
        isinstance(value, int | float)
        or (isinstance(value, str) and value[:2].lstrip("-−+")[:1].isdigit() and ":" not in value)
        for value in told
    )


def _last_width(widths: list[int], *, wraps: bool) -> int:
    """What a terminal leaves to the last column; a pipe takes everything."""
    if not wraps or not sys.stdout.isatty():
        return widths[-1]
    import shutil

    left = shutil.get_terminal_size().columns - sum(width + len(_GAP) for width in widths[:-1])
    return min(widths[-1], max(left, _NARROWEST))


def _wrapped(row: list[str], width: int) -> list[list[str]]:
    """The row as one or more lines, of which only the first has the other columns."""
    if len(row[-1]) <= width:
        return [row]
    import textwrap

    first, *rest = textwrap.wrap(row[-1], width)
    return [[*row[:-1], first], *([*[""] * (len(row) - 1), part] for part in rest)]


def _line(parts: Sequence[Sequence[str]], widths: list[int], right: list[bool]) -> str:
    return "\n".join(
        _GAP.join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(part, widths, right, strict=True)
        ).rstrip()
        for part in parts
    )
