"""Return series and weights from a person's own CSV or Parquet file: a cell that cannot be read is named by its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.market.raw_bars import open_times, slashed_patterns
from tidemill.market.tables import table_chunks, table_columns

_DAILY = Interval.parse("1d")
_TIMES = ("open_time", "date", "ts", "timestamp", "datetime", "time")
_MISSING = ("", "null", "na", "n/a", "none", "nan")


def read_returns(path: Path) -> pl.Series:
    """The column `return` of a file of `date, return` in the order of time; null where a cell is empty.

    InputError for a missing or unreadable file, a date or a number that cannot be read.
    """
    table = _columns(path, {"date": ("date", *_TIMES), "return": ("return", "returns")}, "return file")
    dates, returns = _moments(table, "date", path, _DAILY), _numbers(table, "return", path)
    return pl.DataFrame([dates, returns]).sort("date", maintain_order=True)["return"]


def read_weights(path: Path) -> pl.DataFrame:
    """symbol, open_time, weight of a file, sorted by symbol and time; an empty weight is null: no wish at that time.

    InputError for a missing or unreadable file, a row without symbol, a time or a number that cannot be read, and two
    weights for one symbol and time.
    """
    table = _columns(path, {"symbol": ("symbol", "ticker"), "open_time": _TIMES, "weight": ("weight",)}, "weights file")
    symbols = table["symbol"].cast(pl.String).str.strip_chars()
    _refuse(table, symbols.is_null() | (symbols == ""), path, "has no symbol")
    frame = pl.DataFrame([symbols, _moments(table, "open_time", path), _numbers(table, "weight", path)])
    _refuse(
        table,
        ~frame.select(pl.struct("symbol", "open_time").is_first_distinct()).to_series(),
        path,
        "repeats a symbol and time",
    )
    return frame.sort("symbol", "open_time")


def read_sectors(path: str | Path) -> pl.DataFrame:
    """symbol, sector of a file; InputError for a missing file, a missing column or a row without a symbol."""
    file = Path(path).expanduser()
    table = _columns(file, {"symbol": ("symbol", "ticker"), "sector": ("sector", "industry", "group")}, "sector file")
    symbols = table["symbol"].cast(pl.String).str.strip_chars()
    _refuse(table, symbols.is_null() | (symbols == ""), file, "has no symbol")
    return pl.DataFrame([symbols, table["sector"].cast(pl.String)])


def _columns(path: Path, wanted: Mapping[str, tuple[str, ...]], what: str) -> pl.DataFrame:
    """The columns under our names, and `source_line`. wanted: name → what it may be called, compared in lower case."""
    if not path.is_file():
        raise InputError(f"The {what} {path} does not exist or is a folder. Check the path.")
    given = {name.strip().lower(): name for name in reversed(table_columns(path))}
    matched = {name: next((given[choice] for choice in choices if choice in given), None) for name, choices in wanted.items()}
    missing = [name for name, column in matched.items() if column is None]
    if missing:
        found = ", ".join(repr(name[:40]) for name in reversed([*given.values()][-16:]))
        raise InputError(f"The {what} {path} lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}. Found: {found}.")
    chosen = {name: column for name, column in matched.items() if column is not None}
    table = pl.concat(list(table_chunks(path, list(chosen.values()))), how="vertical_relaxed")
    return table.select("source_line", *(pl.col(column).alias(name) for name, column in chosen.items()))


def _refuse(table: pl.DataFrame, wrong: pl.Series, path: Path, what: str) -> None:
    if wrong.any():
        line = table["source_line"].filter(wrong)[0]
        raise InputError(f"{path}, line {line}, {what}. Correct or remove the line.")


def _moments(table: pl.DataFrame, name: str, path: Path, interval: Interval | None = None) -> pl.Series:
    cells = table[name]
    slashed = slashed_patterns(cells) if cells.dtype == pl.String else ()
    read = open_times(cells, interval, slashed)
    _refuse(table, read.is_null(), path, f"has no readable {name}; write it as 2024-01-31 or 2024-01-31T09:30")
    return read.alias(name)


def _numbers(table: pl.DataFrame, name: str, path: Path) -> pl.Series:
    cells = table[name]
    if cells.dtype == pl.String:
        text = cells.str.strip_chars()
        cells = pl.select(pl.when(~text.str.to_lowercase().is_in(_MISSING)).then(text)).to_series()
    read = cells.cast(pl.Float64, strict=False)
    _refuse(
        table, read.is_null() & cells.is_not_null(), path, f"has a {name} that is not a number; write a fraction such as 0.012"
    )
    return read.alias(name)
