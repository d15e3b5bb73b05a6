"""From a table with its own column names and cell texts to typed raw bars.

A cell that cannot be read costs the cell, never the line.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.market.tables import EXTRA_CELL

# What the columns may be called, in order of preference; compared in lower case, a blank counts as an underscore.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker"),
    "open_time": ("open_time", "ts", "timestamp", "datetime", "date", "time"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "quote_volume": ("quote_volume",),
    "adjusted_close": ("adjusted_close", "adj_close", "adjclose"),
}
NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume", "adjusted_close")
_OPTIONAL = {"symbol", "quote_volume", "adjusted_close"}
_TIME = pl.Datetime("us", "UTC")
_NULL_TEXTS = ["", "null", "na", "n/a", "none"]
# Epoch counts tell their unit by size: 1e11 s is the year 5138, 1e11 ms is 1973.
_EPOCH_UNITS = ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1))
_CLOCKS = ("%H:%M:%S", "%H:%M:%S%.f", "%H:%M")
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d")
_MOMENTS = tuple(f"%Y-%m-%d{mark}{clock}" for mark in ("T", " ") for clock in _CLOCKS)
_UTC_SUFFIX = r"\s*(?:[Zz]|UTC|[+-]00:?00)$"
_SNIFFED = 64
_Reader = Callable[[pl.Series], pl.Series]
_YEAR_1700 = -8_520_336_000_000_000
_ZONED_MIDNIGHT = r"^(\d{4}-\d{2}-\d{2})[T ]00:00(?::00(?:\.0+)?)?[+-]\d{2}:?\d{2}$"


def match_columns(names: Sequence[str], path: Path) -> dict[str, str]:
    """Which of `names` holds which column of raw bars. InputError names what is missing and what was found."""
    found = {name.strip().lower().replace(" ", "_"): name for name in reversed(names)}
    matched = {}
    for target, choices in COLUMN_NAMES.items():
        given = next((found[choice] for choice in choices if choice in found), None)
        if given is not None:
            matched[target] = given
    missing = [target for target in COLUMN_NAMES if target not in matched and target not in _OPTIONAL]
    if missing:
        shown = ", ".join(repr(name[:40]) for name in names[:16]) or "none"
        wanted = ", ".join("open_time (or date, ts)" if name == "open_time" else name for name in missing)
        raise InputError(f"{path} lacks the column{'s'[: len(missing) > 1]} {wanted}. Found: {shown}.")
    return matched


def slashed_patterns(texts: pl.Series) -> tuple[str, ...]:
    """How dates with slashes are to be read, none where `texts` (the first cells of a file) do not prove it.

    01/02/2017 may be January or February: only a number above 12 in one place, and none in the other, tells which is the day;
    and in 17/01/03 what is above 12 may be the year.
    """
    parts = texts.drop_nulls().str.strip_chars().str.extract_groups(r"^(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?:\s|$)")
    numbers = parts.struct.unnest().drop_nulls()
    if not numbers.height:
        return ()
    first, second, _ = (numbers[name].cast(pl.Int64) for name in numbers.columns)
    if (first > 12).any() == (second > 12).any():
        return ()
    year = "%Y" if (numbers[numbers.columns[2]].str.len_bytes() == 4).all() else "%y"
    if year == "%y" and (first > 12).any():
        return ()
    date = f"%m/%d/{year}" if (second > 12).any() else f"%d/%m/{year}"
    return (date, *(f"{date} {clock}" for clock in _CLOCKS))


def raw_bars(
    chunk: pl.DataFrame, matched: dict[str, str], *, symbol: str, interval: Interval | None, slashed: tuple[str, ...] = ()
) -> pl.DataFrame:
    """Typed raw bars of a chunk: `symbol, open_time, open, high, low, close, volume`, the optional columns that it has,
    `source_line` and `unreadable` (the first cell that could not be read, null where all could).

    symbol: for tables without such a column. interval: from a day up, a zoned midnight means its date. slashed: patterns for
    dates with slashes, which are unreadable without. Times without zone are UTC.
    """
    values: list[pl.Series] = []
    faults: list[pl.Series] = []
    for target, given in matched.items():
        cells = chunk[given]
        read = (
            _symbols(cells)
            if target == "symbol"
            else open_times(cells, interval, slashed)
            if target == "open_time"
            else _numbers(cells)
        )
        values.append(read.alias(target))
        faults += _faults(target, cells, read)
    if "symbol" not in matched:
        values.insert(0, pl.Series("symbol", [symbol], dtype=pl.String).new_from_index(0, chunk.height))
    if EXTRA_CELL in chunk.columns and chunk[EXTRA_CELL].null_count() < chunk.height:
        faults.append(
            chunk.select(pl.when(pl.col(EXTRA_CELL).is_not_null()).then(pl.lit("too many cells")).alias("extra"))["extra"]
        )
    return pl.DataFrame([*values, chunk["source_line"], _first_fault(faults, chunk.height)])


def _first_fault(faults: list[pl.Series], height: int) -> pl.Series:
    if not faults:
        return pl.Series("unreadable", [None], dtype=pl.String).new_from_index(0, height)
    named = pl.DataFrame([fault.alias(str(position)) for position, fault in enumerate(faults)])
    return named.select(pl.coalesce(pl.all()).alias("unreadable"))["unreadable"]


def _faults(target: str, cells: pl.Series, read: pl.Series) -> list[pl.Series]:
    """At most one series of texts like `close: 'abc'`, null where the cell was read or was empty."""
    if read.null_count() == cells.null_count():
        return []
    text = cells.cast(pl.String, strict=False)
    # polars 2.1 panics when it formats columns that are chunked differently
    frame = pl.DataFrame([text.alias("text"), read.is_null().alias("lost")]).rechunk()
    empty = pl.col("text").is_null() | pl.col("text").str.strip_chars().str.to_lowercase().is_in(_NULL_TEXTS)
    shown = pl.format("{}: '{}'", pl.lit(target), pl.col("text").str.slice(0, 40))
    return [frame.select(pl.when(pl.col("lost") & ~empty).then(shown).alias("fault"))["fault"]]


def _symbols(cells: pl.Series) -> pl.Series:
    text = cells.cast(pl.String, strict=False)
    return text.str.strip_chars() if cells.dtype == pl.String else text


def _numbers(cells: pl.Series) -> pl.Series:
    if cells.dtype != pl.String:
        return cells.cast(pl.Float64, strict=False)
    read = cells.cast(pl.Float64, strict=False)
    if read.null_count() > cells.null_count():  # blanks around numbers are rare and cost a pass
        read = cells.str.strip_chars().cast(pl.Float64, strict=False)
    return read


def open_times(cells: pl.Series, interval: Interval | None, slashed: tuple[str, ...] = ()) -> pl.Series:
    """Times of a column as UTC microseconds, null where a cell cannot be read; the rest as in `raw_bars`."""
    daily = interval is not None and interval.seconds >= 86_400
    dtype = cells.dtype
    if isinstance(dtype, pl.Datetime):
        return _zoned(cells, dtype, daily)
    if dtype == pl.Date:
        return cells.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype.is_numeric():
        return _epoch(cells.cast(pl.Float64) if dtype.is_float() else cells.cast(pl.Int64, strict=False))
    if dtype == pl.String:
        return _time_texts(cells.str.strip_chars(), daily, slashed)
    return pl.Series("open_time", [None], dtype=_TIME).new_from_index(0, cells.len())


def _zoned(cells: pl.Series, dtype: pl.Datetime, daily: bool) -> pl.Series:
    fine = cells.dt.cast_time_unit("us")
    if dtype.time_zone is None:
        return fine.dt.replace_time_zone("UTC")
    if not daily or dtype.time_zone == "UTC":
        return fine.dt.convert_time_zone("UTC")
    local = fine.dt.replace_time_zone(None)
    frame = pl.DataFrame({"local": local, "utc": fine.dt.convert_time_zone("UTC")})
    at_midnight = pl.col("local") == pl.col("local").dt.truncate("1d")
    return frame.select(pl.when(at_midnight).then(pl.col("local").dt.replace_time_zone("UTC")).otherwise("utc").alias("t"))["t"]


def _epoch(counts: pl.Series) -> pl.Series:
    """Epoch counts in s, ms, us or ns, told apart by their size, value by value."""
    value = pl.col("count")
    micros = (value // 1_000).cast(pl.Int64, strict=False)
    for ceiling, factor in reversed(_EPOCH_UNITS):
        micros = pl.when(value.abs() < ceiling).then((value * factor).cast(pl.Int64, strict=False)).otherwise(micros)
    return pl.DataFrame({"count": counts}).select(micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("t"))["t"]


def _time_texts(texts: pl.Series, daily: bool, slashed: tuple[str, ...]) -> pl.Series:
    """ISO 8601 dates and times, with or without zone, and epoch counts.

    Nearly every file keeps to one way of writing, so the way that reads most of the first cells goes first; the others see only
    what it left.
    """
    if daily:
        texts = texts.str.replace(_ZONED_MIDNIGHT, "$1")
    head = texts.drop_nulls().head(_SNIFFED)
    known: tuple[_Reader, ...] = (*_READERS, *(partial(_naive, pattern=pattern) for pattern in slashed))
    readers = sorted(known, key=lambda reader: reader(head).null_count())
    read = readers[0](texts)
    for reader in readers[1:]:
        lost = read.is_null() & texts.is_not_null()
        if not lost.any():
            break
        read = read.scatter(lost.arg_true(), reader(texts.filter(lost)))
    return read


def _epoch_texts(texts: pl.Series) -> pl.Series:
    counts = texts.str.extract(r"^(-?\d{9,19}(?:\.\d+)?)$")
    whole = counts.cast(pl.Int64, strict=False)
    return _epoch(whole if whole.null_count() == counts.null_count() else counts.cast(pl.Float64, strict=False))


def _naive(texts: pl.Series, pattern: str) -> pl.Series:
    read = texts.str.strptime(pl.Datetime("us"), pattern, strict=False).dt.replace_time_zone("UTC")
    # %Y reads 17 as the year 17: what is before 1700 is a misreading.
    early = read.to_physical() < _YEAR_1700
    return read.set(early, None) if early.any() else read


def _utc(texts: pl.Series, pattern: str) -> pl.Series:
    return _naive(texts.str.replace(_UTC_SUFFIX, ""), pattern)


def _offset(texts: pl.Series, pattern: str) -> pl.Series:
    return texts.str.strptime(_TIME, f"{pattern}%z", strict=False)


_READERS: tuple[_Reader, ...] = (
    *(partial(_naive, pattern=pattern) for pattern in (*_DATES, *_MOMENTS)),
    _epoch_texts,
    *(partial(_utc, pattern=pattern) for pattern in _MOMENTS),
    *(partial(_offset, pattern=pattern) for pattern in _MOMENTS),
)
