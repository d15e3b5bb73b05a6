"""Where a causality proof cuts: at listings, gaps, unknown cells and the most extreme bars, and anywhere besides."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from tidemill.features.frames import micros
from tidemill.validation.causality.inputs import Flags, ProofInputs
from tidemill.validation.causality.observation import Integers


def cut_times(inputs: ProofInputs, count: int) -> list[int]:
    """Up to `count` times in epoch microseconds, ascending, with bars known at them and bars that are not.

    Of each kind of remarkable bar some are drawn; a cut falls on the close of the bar, on the close before it, or between the
    two.
    """
    slots = inputs.slots
    if len(slots) < 2 or count < 1:
        return []
    random = np.random.default_rng((inputs.seed, len(slots)))
    rows = _remarkable(inputs, count, random)
    at = np.clip(np.searchsorted(slots, inputs.bars.known[rows]), 1, len(slots) - 1)
    before, here = slots[at - 1], slots[at]
    kind = random.permutation(np.arange(len(rows)) % 3)
    times = np.select([kind == 0, kind == 1], [before, here], before + (here - before) // 2)
    return sorted({int(time) for time in times if slots[0] <= time < slots[-1]})


def listing_cuts(inputs: ProofInputs) -> list[int]:
    """The last slot before each listing, as `cut_times`."""
    first = inputs.bars.known[inputs.bounds[:-1]]
    before = np.searchsorted(inputs.slots, first) - 1
    return sorted({int(inputs.slots[place]) for place in before if place >= 0})


def late_listings(inputs: ProofInputs) -> Iterator[tuple[ProofInputs, int]]:
    """The same panels but for one symbol, the first, the last or one between, that is listed at its last bar or halfway; each
    with the last slot before that listing.
    """
    count, slots = len(inputs.bounds) - 1, inputs.slots
    if count < 2:
        return
    ends = np.searchsorted(slots, inputs.bars.known[inputs.bounds[1:] - 1])
    for symbol in dict.fromkeys((count - 1, 0, count // 2)):
        for slot in dict.fromkeys((int(ends[symbol]), int(ends[symbol]) // 2)):
            if slot:
                yield inputs.listed_late(symbol, slot), int(slots[slot - 1])


def _remarkable(inputs: ProofInputs, count: int, random: np.random.Generator) -> Integers:
    kinds = [flags for flags in (*_edges(inputs), _unknown_edges(inputs.bars.frame)) if flags.any()]
    drawn = [random.permutation(np.flatnonzero(flags)) for flags in kinds]
    drawn += [_extreme(inputs), random.permutation(inputs.bars.frame.height)[:count]]
    # One of each kind in turn, so that a small count still has some of all.
    turns = [rows[turn] for turn in range(count) for rows in drawn if turn < len(rows)]
    return np.array(list(dict.fromkeys(int(row) for row in turns))[:count], dtype=np.int64)


def _edges(inputs: ProofInputs) -> list[Flags]:
    """First bars, last bars, and bars after a gap."""
    first, last = np.zeros(inputs.bars.frame.height, dtype=np.bool_), np.zeros(inputs.bars.frame.height, dtype=np.bool_)
    known, bounds = inputs.bars.known, inputs.bounds
    first[bounds[:-1]] = known[bounds[:-1]] > inputs.slots[0]
    last[bounds[1:] - 1] = known[bounds[1:] - 1] < inputs.slots[-1]
    step = np.diff(micros(inputs.bars.frame["open_time"]), prepend=0)
    step[bounds[:-1]] = 0
    usual = np.median(step[step > 0]) if (step > 0).any() else 0
    return [first, last, step > 4 * usual]


def _unknown_edges(frame: pl.DataFrame) -> Flags:
    """Bars at which unknown cells begin or end."""
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    if not floats:
        return np.zeros(frame.height, dtype=np.bool_)
    unknown = frame.select(pl.any_horizontal(~pl.col(name).is_finite().fill_null(value=False) for name in floats)).to_series()
    flags: Flags = (unknown != unknown.shift(1)).fill_null(value=False).to_numpy()
    return flags


def _extreme(inputs: ProofInputs) -> Integers:
    """Bars in the order of how extreme they are: by change of the first numeric column that matters, then by size."""
    frame = inputs.bars.frame
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    if not floats:
        return np.empty(0, dtype=np.int64)
    name = "close" if "close" in floats else floats[0]
    values = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    change = np.abs(np.diff(values, prepend=np.nan)) / np.maximum(np.abs(values), 1e-12)
    change[inputs.bounds[:-1]] = 0.0
    order: Integers = np.argsort(-np.nan_to_num(change, nan=0.0, posinf=0.0), kind="stable")[:200]
    return order
