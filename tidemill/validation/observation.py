"""What a computation answered, and where two answers differ, bit for bit.

A row is its symbol and open_time; rows come in any order. Unknown values are equal to each other, whether null or NaN of any
bits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.errors import InputError

Integers = NDArray[np.int64]
KEYS = ("symbol", "open_time")
_NOT_VALUES = (*KEYS, "known_at")
_ROW = "__row"


@dataclass(frozen=True)
class Observation:
    """An answer. known: epoch microseconds at which each row claims to be known."""

    frame: pl.DataFrame
    known: Integers

    @cached_property
    def features(self) -> tuple[str, ...]:
        return tuple(name for name in self.frame.columns if name not in _NOT_VALUES)

    @cached_property
    def keys(self) -> pl.DataFrame:
        return self.frame.select(KEYS)

    def row(self, index: int) -> tuple[str, object]:
        """Symbol and open_time of a row."""
        symbol, time = self.keys.row(index)
        return str(symbol), time


@dataclass(frozen=True)
class Pairing:
    """Rows of two answers that have one key: `mine` and `theirs` are as long as each other.

    lone: symbol and open_time of the first row that only one of them has, None when both have the same rows.
    """

    mine: Integers
    theirs: Integers
    lone: tuple[str, object] | None


def observed(frame: pl.DataFrame, length: int, known_at: pl.DataFrame | None) -> Observation:
    """`frame` as an answer. length: of a bar, in microseconds. known_at: when each input row was known, where bars say so.

    A row is known when its own `known_at` says so, else when its bar was, else at the close of its bar. Raises InputError for
    an answer that cannot be compared.
    """
    missing = [name for name in KEYS if name not in frame.columns]
    if missing:
        raise InputError(f"The function answers no column {missing[0]!r}. Return symbol, open_time and one column a feature.")
    if not isinstance(frame.schema["open_time"], pl.Datetime) or frame["open_time"].null_count():
        raise InputError("The column 'open_time' of the answer must hold times, and none may be missing.")
    close = micros(frame["open_time"]) + length
    if "known_at" in frame.columns:
        return Observation(frame, np.maximum(micros(frame["known_at"].fill_null(frame["open_time"])), close))
    if known_at is None:
        return Observation(frame, close)
    stated = frame.select(KEYS).join(known_at, on=KEYS, how="left", maintain_order="left")["known_at"]
    return Observation(frame, np.where(stated.is_null().to_numpy(), close, micros(stated.fill_null(frame["open_time"]))))


def micros(times: pl.Series) -> Integers:
    """Epoch microseconds of times without nulls."""
    made: Integers = times.dt.cast_time_unit("us").to_physical().to_numpy()
    return made


def require_unique(answer: Observation) -> None:
    """InputError when two rows have one key: nobody could say which of them a model would read."""
    twice = answer.keys.filter(answer.keys.is_duplicated())
    if twice.height:
        symbol, time = twice.row(0)
        raise InputError(f"The function answers two rows for {symbol} at {time}. Return one row for each bar.")


def paired(mine: Observation, theirs: Observation, until: int) -> Pairing:
    """Rows of both answers that are known at `until` (epoch microseconds)."""
    kept, other = np.flatnonzero(mine.known <= until), np.flatnonzero(theirs.known <= until)
    if len(kept) == len(other):
        left, right = mine.keys[kept], theirs.keys[other]
        if left.equals(right):
            return Pairing(kept, other, None)
    return _joined(mine.keys[kept], theirs.keys[other], kept, other)


def _joined(left: pl.DataFrame, right: pl.DataFrame, kept: Integers, other: Integers) -> Pairing:
    mine, theirs = left.with_columns(pl.Series(_ROW, kept)), right.with_columns(pl.Series("__other", other))
    both = mine.join(theirs, on=KEYS, how="inner", maintain_order="left")
    lone = pl.concat([left.join(right, on=KEYS, how="anti"), right.join(left, on=KEYS, how="anti")]).sort("open_time", "symbol")
    first = None if lone.is_empty() else (str(lone["symbol"][0]), lone["open_time"][0])
    return Pairing(both[_ROW].to_numpy(), both["__other"].to_numpy(), first)


def differing(
    mine: Observation, theirs: Observation, rows: tuple[Integers, Integers], features: Iterable[str]
) -> dict[str, Integers]:
    """Feature → positions in `rows` at which the two answers differ; features that are equal everywhere are left out."""
    found = {}
    for name in features:
        if name not in theirs.frame.columns:
            found[name] = np.arange(len(rows[0]))
            continue
        unequal = _unequal(mine.frame[name], theirs.frame[name], rows)
        if unequal.any():
            found[name] = np.flatnonzero(unequal)
    return found


def _unequal(mine: pl.Series, theirs: pl.Series, rows: tuple[Integers, Integers]) -> NDArray[np.bool_]:
    if mine.dtype == pl.Float64 and theirs.dtype == pl.Float64:
        return _unequal_floats(_taken(mine, rows[0]), _taken(theirs, rows[1]))
    if mine.dtype.is_float() or theirs.dtype.is_float():  # an int column that once holds a null, say, may come as floats
        return _unequal(mine.cast(pl.Float64, strict=False), theirs.cast(pl.Float64, strict=False), rows)
    unequal: NDArray[np.bool_] = mine[rows[0]].cast(pl.String).ne_missing(theirs[rows[1]].cast(pl.String)).to_numpy()
    return unequal


def _taken(column: pl.Series, rows: Integers) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.to_numpy()  # a null comes as NaN
    return values if len(rows) == len(values) and _is_range(rows) else values[rows]


def _is_range(rows: Integers) -> bool:
    return len(rows) == 0 or bool(rows[0] == 0 and rows[-1] == len(rows) - 1)


def _unequal_floats(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.bool_]:
    unequal: NDArray[np.bool_] = np.ascontiguousarray(mine).view(np.int64) != np.ascontiguousarray(theirs).view(np.int64)
    if unequal.any():
        unequal &= ~(np.isnan(mine) & np.isnan(theirs))
    return unequal
