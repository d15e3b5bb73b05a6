"""Bars as a person and a spreadsheet read them."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tidemill.cli.common.output import price, write_table
from tidemill.domain.market import BAR_COLUMNS

if TYPE_CHECKING:
    from tidemill.storage.bar_rows import BarRow

_SHOWN = ("open", "high", "low", "close", "volume")


def write_bars_table(title: str, rows: "Sequence[BarRow]") -> None:
    opened, known = _moments([row.open_time for row in rows]), _moments([row.known_at for row in rows])
    columns = ("open time", *_SHOWN, "known at")
    cells = [
        [start, *(price(getattr(row, name)) for name in _SHOWN), since]
        for start, row, since in zip(opened, rows, known, strict=True)
    ]
    write_table(title, columns, cells)


def write_bars_csv(rows: "Sequence[BarRow]") -> None:
    """All columns; `data import` reads it again. No value needs quotes: symbols have no commas."""
    sys.stdout.write(",".join(BAR_COLUMNS) + "\n")
    for row in rows:
        sys.stdout.write(",".join(_csv_cell(getattr(row, name)) for name in BAR_COLUMNS) + "\n")


def _csv_cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return "" if value is None else str(value)


def _moments(times: list[datetime]) -> list[str]:
    """Dates where all are midnight, times else."""
    midnight = all(time.hour == time.minute == time.second == 0 for time in times)
    return [f"{time:%Y-%m-%d}" if midnight else f"{time:%Y-%m-%d %H:%M}" for time in times]
