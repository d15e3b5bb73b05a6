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
from tidemill.features.frames import micros
from tidemill.validation.comparison import bits_of, differences, first_difference

Integers = NDArray[np.int64]
KEYS = ("symbol", "open_time")
_NOT_VALUES = (*KEYS, "known_at")
_ROW = "__row"
# A few units in the last place.
_ROUNDING = 1e-15


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
        return keys_of(self.frame)

    @cached_property
    def columns(self) -> dict[str, pl.Series]:
        return {column.name: column for column in self.frame.get_columns()}

    @cached_property
    def bits(self) -> dict[str, Integers]:
        """The columns of floats as the integers of their bits, read-only; what is null is NaN."""
        return {name: bits_of(column.to_numpy()) for name, column in self.columns.items() if column.dtype == pl.Float64}

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
        raise InputError(
            f"The function returns no column {missing[0]!r}. Return symbol, open_time and one column for each feature."
        )
    if not isinstance(frame.schema["open_time"], pl.Datetime) or frame["open_time"].null_count():
        raise InputError("The column 'open_time' of the result must hold times, and none may be missing.")
    close = micros(frame["open_time"]) + length
    if "known_at" in frame.columns:
        return Observation(frame, np.maximum(micros(frame["known_at"].fill_null(frame["open_time"])), close))
    if known_at is None:
        return Observation(frame, close)
    stated = _stated(frame, known_at)
    return Observation(frame, np.where(stated.is_null().to_numpy(), close, micros(stated.fill_null(frame["open_time"]))))


def _stated(frame: pl.DataFrame, known_at: pl.DataFrame) -> pl.Series:
    """When the bar of each row of an answer was known; null where it has none."""
    keys = keys_of(frame)
    if keys.equals(keys_of(known_at)):
        return known_at["known_at"]
    return keys.join(known_at, on=KEYS, how="left", maintain_order="left")["known_at"]


def keys_of(frame: pl.DataFrame) -> pl.DataFrame:
    """Symbol and open_time. A proof asks for them a thousand times, and `select` takes eight times as long."""
    return pl.DataFrame([frame[name] for name in KEYS])


def require_unique(answer: Observation) -> None:
    """InputError when two rows have one key: nobody could say which of them a model would read."""
    twice = answer.keys.filter(answer.keys.is_duplicated())
    if twice.height:
        symbol, time = twice.row(0)
        raise InputError(f"The function returns two rows for {symbol} at {time}. Return one row for each bar.")


def paired(mine: Observation, theirs: Observation, until: int) -> Pairing:
    """Rows of both answers that are known at `until` (epoch microseconds)."""
    return paired_rows(mine, theirs, np.flatnonzero(mine.known <= until), np.flatnonzero(theirs.known <= until))


def paired_rows(mine: Observation, theirs: Observation, kept: Integers, other: Integers) -> Pairing:
    """Those rows of one answer that are `kept`, and `other` ones of the other."""
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
) -> dict[str, int]:
    """Feature → first position in `rows` at which the two answers differ; features that are equal everywhere are left out."""
    found = {}
    for name in features if len(rows[0]) else ():
        one, other = mine.bits.get(name), theirs.bits.get(name)
        if one is not None and other is not None:
            at = first_difference(one, other, *rows)
        elif name in theirs.columns:
            at = _first_unequal(mine.columns[name], theirs.columns[name], rows)
        else:
            at = 0
        if at >= 0:
            found[name] = at
    return found


def unequal_rows(mine: Observation, theirs: Observation, rows: tuple[Integers, Integers], name: str) -> Integers:
    """Every position in `rows` at which a feature differs."""
    one, other = mine.bits.get(name), theirs.bits.get(name)
    if one is not None and other is not None:
        return np.flatnonzero(differences(one, other, *rows))
    return _unequal(mine.columns[name], theirs.columns[name], rows) if name in theirs.columns else np.arange(len(rows[0]))


def beyond_rounding(mine: Observation, theirs: Observation, rows: tuple[Integers, Integers], name: str) -> int | None:
    """The first position in `rows` at which a feature differs by more than rounding; None where there is none."""
    found = unequal_rows(mine, theirs, rows, name)
    if mine.columns[name].dtype.is_float() and theirs.columns[name].dtype.is_float():
        one, other = (
            answer.columns[name].cast(pl.Float64).to_numpy()[own[found]]
            for answer, own in zip((mine, theirs), rows, strict=True)
        )
        found = found[~np.isclose(one, other, rtol=_ROUNDING, atol=0.0)]
    return int(found[0]) if len(found) else None


def living_rows(answer: Observation, name: str, dull: object) -> Integers:
    """The rows at which a feature has a value other than `dull`; None: any value."""
    column = answer.columns[name]
    known = (column.is_not_nan() if column.dtype.is_float() else column.is_not_null()).fill_null(value=False)
    lives = known if dull is None else known & (column != dull).fill_null(value=False)
    return np.flatnonzero(lives.to_numpy())


def _first_unequal(mine: pl.Series, theirs: pl.Series, rows: tuple[Integers, Integers]) -> int:
    """The position of the first difference, -1 for none."""
    unequal = _unequal(mine, theirs, rows)
    return int(unequal[0]) if len(unequal) else -1


def _unequal(mine: pl.Series, theirs: pl.Series, rows: tuple[Integers, Integers]) -> Integers:
    """The positions of all differences. An int column that once holds a null, say, may come as floats."""
    if mine.dtype.is_float() or theirs.dtype.is_float():
        one, other = (bits_of(column.cast(pl.Float64, strict=False).to_numpy()) for column in (mine, theirs))
        return np.flatnonzero(differences(one, other, *rows))
    return np.flatnonzero(mine[rows[0]].cast(pl.String).ne_missing(theirs[rows[1]].cast(pl.String)).to_numpy())
