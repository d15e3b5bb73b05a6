"""The compiled part of ranking: which predictions stand, who is listed, and the weights of strategies that need no more.

A scan of one slot is the step; panels are [slots, symbols], the state is two rows that go on from call to call.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry, kernel

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


class SlotPredictions(NamedTuple):
    """Slots as a ranking reads them. number: [slots] since the anchor; own, predicted, prediction: [slots, symbols]."""

    number: Indices
    own: Flags
    predicted: Flags
    prediction: Floats


class Standing(NamedTuple):
    """[symbols]. newest: prediction of the symbol's newest own slot, NaN for none. listed: whether it was ever predicted.

    best: rank of what stands, from 1; 0 where there is none, or no opinion. side: 1 long, −1 short, 0 neither.
    """

    newest: Floats
    listed: Flags
    best: Indices
    side: Indices


@kernel
def _take(given: SlotPredictions, slot: int, standing: Standing) -> None:
    """A slot of its own that says nothing of a symbol ends what stood."""
    for j in range(standing.newest.size):
        if given.predicted[slot, j]:
            standing.listed[j] = True
        if given.own[slot, j]:
            standing.newest[j] = given.prediction[slot, j]


@kernel
def _rank(standing: Standing) -> int:
    """Rank what stands, the highest first and equal ones in the order of symbols; returns how many there are.

    Where several are all equal there is no opinion.
    """
    newest, best = standing.newest, standing.best
    count, low, high = 0, np.inf, -np.inf
    place, values = np.empty(newest.size, np.int64), np.empty(newest.size)
    for j in range(newest.size):
        best[j] = 0
        value = newest[j]
        if np.isfinite(value):
            place[count], values[count] = j, -value
            low, high = min(low, value), max(high, value)
            count += 1
    if count == 1:
        best[place[0]] = 1
    if high > low:
        order = np.argsort(values[:count], kind="mergesort")
        for rank in range(count):
            best[place[order[rank]]] = rank + 1
    return count


@kernel
def _any_short(standing: Standing, can_short: Flags) -> bool:
    """Whether anything that is predicted now can be short."""
    found = False
    for j in range(can_short.size):
        found |= can_short[j] and np.isfinite(standing.newest[j])
    return found


@kernel
def _side(value: float, best: int, count: int, number: float, can_short: bool) -> int:
    if count == 1:
        return 1 if value > 0.0 else -1 if value < 0.0 and can_short else 0
    if best == 0:
        return 0
    if best <= number:
        return 1
    return -1 if count + 1 - best <= number and can_short else 0


@kernel
def _choose(standing: Standing, can_short: Flags, quantile: float) -> tuple[int, float, bool]:
    """Rank what stands and fill `side`; returns how many stand, how many each side holds, and whether there is a short one.

    A symbol alone in its universe cannot be ranked: it is long while its prediction is above 0, and short, where allowed,
    below.
    """
    count = _rank(standing)
    number = max(np.floor(count * quantile + 1e-9), 1.0)
    for j in range(can_short.size):
        standing.side[j] = _side(standing.newest[j], standing.best[j], count, number, can_short[j])
    return count, number, _any_short(standing, can_short)


@entry
def choose_at(
    given: SlotPredictions, slot: int, standing: Standing, can_short: Flags, every: int, quantile: float
) -> tuple[int, float, bool]:
    """Take one slot and, where the book is rebalanced at it, choose; the count is 0 where nothing is asked."""
    _take(given, slot, standing)
    return _choose(standing, can_short, quantile) if given.number[slot] % every == 0 else (0, 1.0, False)


@entry
def quantile_weights(
    given: SlotPredictions,
    standing: Standing,
    can_short: Flags,
    every: int,
    quantile: float,
    gross: float,
    cap: float,
    weights: Floats,
) -> None:
    """Each chosen symbol has the same weight; where nothing can be short now, all of `gross` is long. weights: NaN to begin
    with, filled at the rebalancing slots for all that are listed.
    """
    for slot in range(given.number.size):
        _take(given, slot, standing)
        if given.number[slot] % every != 0:
            continue
        count, number, both = _choose(standing, can_short, quantile)
        half = 2.0 if both else 1.0
        size = min(gross, cap) if count == 1 else min(gross / half / number, cap)
        for j in range(can_short.size):
            if count and standing.listed[j]:
                weights[slot, j] = standing.side[j] * size if standing.side[j] else 0.0


@entry
def top_weights(
    given: SlotPredictions, standing: Standing, every: int, k: int, gross: float, cap: float, weights: Floats
) -> None:
    """The `k` best, but at most half of those that stand; one alone is held while its prediction is above 0."""
    for slot in range(given.number.size):
        _take(given, slot, standing)
        if given.number[slot] % every != 0:
            continue
        count = _rank(standing)
        held = max(min(k, count // 2), 1)
        each = min(gross / held, cap)
        for j in range(standing.newest.size):
            if count and standing.listed[j]:
                chosen = 0 < standing.best[j] <= held and (count > 1 or standing.newest[j] > 0.0)
                weights[slot, j] = each if chosen else 0.0
