"""The input of a causality proof: bars and what stands beside them, cut off at a time or changed from it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.errors import InputError
from tidemill.features.frames import micros, run_bounds
from tidemill.validation.causality.alteration import changed, mixed
from tidemill.validation.causality.observation import KEYS, Integers, Observation, observed

Flags = NDArray[np.bool_]
# Before all times.
_NEVER = int(np.iinfo(np.int64).min)
# compute(bars, **beside) → symbol, open_time and one column a feature.
Compute: TypeAlias = Callable[..., pl.DataFrame]


@dataclass(frozen=True)
class Table:
    """A frame and when each of its rows became known, in epoch microseconds."""

    frame: pl.DataFrame
    known: Integers

    def where(self, kept: Flags) -> Table:
        return self if kept.all() else Table(self.frame.filter(pl.Series(kept)), self.known[kept])

    def replaced(self, other: pl.DataFrame, rows: Flags) -> Table:
        return Table(mixed(self.frame, other, rows), self.known) if rows.any() else self

    def altered(self, other: pl.DataFrame, rows: Flags) -> Table:
        """With the flagged rows of `other`. Where rows tell by being there alone, they are gone."""
        return self.replaced(other, rows) if set(self.frame.columns) - {*KEYS, "known_at"} else self.where(~rows)


@dataclass(frozen=True)
class ProofInputs:
    """Bars, sorted by symbol and time, and the tables beside them. length: of a bar in microseconds.

    twin: the same rows with every number changed, where they are known.
    """

    bars: Table
    beside: Mapping[str, Table]
    length: int
    seed: int
    twin: ProofInputs | None = None

    @cached_property
    def slots(self) -> Integers:
        """The distinct times at which bars become known, ascending."""
        return np.unique(self.bars.known)

    @cached_property
    def other(self) -> ProofInputs:
        """The same rows with every number changed."""
        if self.twin is not None:
            return self.twin
        beside = {name: Table(changed(table.frame, self.seed), table.known) for name, table in self.beside.items()}
        return ProofInputs(Table(changed(self.bars.frame, self.seed), self.bars.known), beside, self.length, self.seed)

    def until(self, cut: int) -> ProofInputs:
        """Only what is known at `cut`."""
        return self._each(lambda table: table.where(table.known <= cut))

    def between(self, first: int, last: int) -> ProofInputs:
        """Bars known in [first, last] alone, beside all that is known at `last`."""
        inside = (self.bars.known >= first) & (self.bars.known <= last)
        twin, own = (
            ProofInputs(each.bars.where(inside), _until(each.beside, last), self.length, self.seed)
            for each in (self.other, self)
        )
        return replace(own, twin=twin)

    def altered_after(self, cut: int) -> ProofInputs:
        """What is known after `cut` changed, and a quarter of it gone."""
        generator = np.random.default_rng(self.seed)

        def alter(table: Table, other: Table) -> Table:
            later = table.known > cut
            return table.replaced(other.frame, later).where(~later | (generator.random(len(later)) > 0.25))

        return self._paired(alter)

    def until_each(self, limits: Mapping[str, int]) -> ProofInputs:
        """Of the symbols of `limits` alone, what of each is known at its limit."""
        kept = self.bars.known <= limits_of(self.bars.frame, limits)
        return ProofInputs(self.bars.where(kept), self.beside, self.length, self.seed)

    def altered_after_each(self, limits: Mapping[str, int]) -> ProofInputs:
        """Of the symbols of `limits` alone, what of each is known after its limit changed, and a quarter of that gone."""
        limit, generator = limits_of(self.bars.frame, limits), np.random.default_rng(self.seed)
        later, named = self.bars.known > limit, limit > _NEVER
        kept = named & (~later | (generator.random(len(later)) > 0.25))
        return ProofInputs(self.bars.replaced(self.other.bars.frame, later).where(kept), self.beside, self.length, self.seed)

    def altered_within(self, after: int, until: int) -> ProofInputs:
        """What becomes known in (after, until] changed."""
        return self._paired(lambda table, other: table.altered(other.frame, (table.known > after) & (table.known <= until)))

    def altered_bars(self, rows: Flags) -> ProofInputs:
        """The flagged bars changed."""
        return ProofInputs(self.bars.replaced(self.other.bars.frame, rows), self.beside, self.length, self.seed)

    def of_symbols(self, names: Sequence[str]) -> ProofInputs:
        """The bars of these symbols alone."""
        kept = self.bars.frame["symbol"].is_in(list(names)).to_numpy()
        return self if kept.all() else ProofInputs(self.bars.where(kept), self.beside, self.length, self.seed)

    def listed_late(self, symbol: int, slot: int) -> ProofInputs:
        """The same, but a symbol, by its number, is listed at a slot, no earlier: what counts those to come then shows."""
        rows = np.arange(self.bars.frame.height)
        own = (rows >= self.bounds[symbol]) & (rows < self.bounds[symbol + 1])
        return ProofInputs(self.bars.where(~own | (self.bars.known >= self.slots[slot])), self.beside, self.length, self.seed)

    def of_rows(self, first: int, last: int) -> ProofInputs:
        """The bars of rows first … last - 1."""
        bars = Table(self.bars.frame.slice(first, last - first), self.bars.known[first:last])
        return ProofInputs(bars, self.beside, self.length, self.seed)

    @cached_property
    def bounds(self) -> Integers:
        """Row bounds of the symbols: those of the i-th are bounds[i] … bounds[i + 1] - 1."""
        return run_bounds(self.bars.frame["symbol"])

    @cached_property
    def positions(self) -> Integers:
        """Number of each bar among its own symbol's, from 0."""
        starts, counts = self.bounds[:-1], np.diff(self.bounds)
        made: Integers = np.arange(self.bars.frame.height) - np.repeat(starts, counts)
        return made

    def answer(self, compute: Compute) -> Observation:
        """What `compute` makes of this."""
        made = compute(self.bars.frame, **{name: table.frame for name, table in self.beside.items()})
        if not isinstance(made, pl.DataFrame):
            raise InputError(f"The function returns {type(made).__name__}; return a polars DataFrame.")
        stated = self.bars.frame.select(*KEYS, "known_at") if "known_at" in self.bars.frame.columns else None
        return observed(made, self.length, stated)

    def _each(self, change: Callable[[Table], Table]) -> ProofInputs:
        beside = {name: change(table) for name, table in self.beside.items()}
        return ProofInputs(change(self.bars), beside, self.length, self.seed)

    def _paired(self, change: Callable[[Table, Table], Table]) -> ProofInputs:
        beside = {name: change(table, self.other.beside[name]) for name, table in self.beside.items()}
        return ProofInputs(change(self.bars, self.other.bars), beside, self.length, self.seed)


def proof_inputs(bars: pl.DataFrame, beside: Mapping[str, pl.DataFrame], length: int | None, seed: int) -> ProofInputs:
    """Checked and sorted inputs. length: of a bar in microseconds; None takes the step that is most frequent.

    A bar without `known_at` is known at its close; a table beside the bars must carry `known_at`. Raises InputError.
    """
    missing = [name for name in KEYS if name not in bars.columns]
    if missing or bars.is_empty():
        raise InputError(f"A proof needs bars with the columns symbol and open_time; {(*missing, 'every row')[0]} is missing.")
    if not isinstance(bars.schema["open_time"], pl.Datetime) or bars.select(KEYS).null_count().sum_horizontal()[0]:
        raise InputError("Every bar needs a symbol and an open_time. Remove the rows without them first.")
    ordered = bars.sort(KEYS)
    if ordered.select(KEYS).is_duplicated().any():
        raise InputError("A symbol has two bars with the same open_time. Keep one of them.")
    span = length or _usual_step(ordered)
    close = micros(ordered["open_time"]) + span
    known = np.maximum(close, micros(_stated(ordered, "bars"))) if "known_at" in ordered.columns else close
    tables = {name: Table(frame, micros(_stated(frame, name))) for name, frame in beside.items()}
    return ProofInputs(Table(ordered, known), tables, span, seed)


def _until(beside: Mapping[str, Table], last: int) -> dict[str, Table]:
    return {name: table.where(table.known <= last) for name, table in beside.items()}


def limits_of(frame: pl.DataFrame, limits: Mapping[str, int]) -> Integers:
    """The limit of the symbol of each row; before all times for the symbols that have none."""
    bounds = run_bounds(frame["symbol"])
    ends = [limits.get(name, _NEVER) for name in frame["symbol"][bounds[:-1]]]
    return np.repeat(np.array(ends, dtype=np.int64), np.diff(bounds))


def _stated(frame: pl.DataFrame, name: str) -> pl.Series:
    column = frame["known_at"] if "known_at" in frame.columns else None
    if column is None or not isinstance(column.dtype, pl.Datetime) or column.null_count():
        raise InputError(f"The table {name!r} must say in a column 'known_at' when each of its rows became known.")
    return column


def _usual_step(bars: pl.DataFrame) -> int:
    steps = bars.select(step=pl.col("open_time").diff().over("symbol").dt.total_microseconds())["step"].drop_nulls()
    if steps.is_empty():
        raise InputError("No symbol has two bars, so the length of a bar is unknown. Give a longer history.")
    return int(steps.value_counts(sort=True)["step"][0])
