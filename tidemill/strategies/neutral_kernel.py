"""The compiled part of neutralisation: sums run in the order of symbols, slot by slot, wherever they are asked for."""

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry, kernel

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


@kernel
def _match(weight: Floats, exposure: Floats, group: Indices, groups: int) -> int:
    """Scale the larger side of each group down to the smaller; returns how many groups are closed, since a side of theirs has
    no exposure.
    """
    long, short, held = np.zeros(groups), np.zeros(groups), np.zeros(groups, np.bool_)
    for j in range(weight.size):
        if weight[j] > 0.0:
            long[group[j]] += weight[j] * exposure[j]
        elif weight[j] < 0.0:
            short[group[j]] -= weight[j] * exposure[j]
        held[group[j]] |= weight[j] > 0.0 or weight[j] < 0.0
    closed = 0
    for at in range(groups):
        closed += held[at] and not min(long[at], short[at]) > 0.0
    for j in range(weight.size):
        side = long[group[j]] if weight[j] > 0.0 else short[group[j]]
        smaller = min(long[group[j]], short[group[j]])
        if weight[j] > 0.0 or weight[j] < 0.0:
            weight[j] *= smaller / side if smaller > 0.0 else 0.0
    return closed


@kernel
def _share(weight: Floats, group: Indices, groups: int) -> None:
    """Each group gets the share of the book that it has of the symbols; no position grows beyond the largest one."""
    number, total = np.zeros(groups), np.zeros(groups)
    asked, book, largest = 0, 0.0, 0.0
    for j in range(weight.size):
        if weight[j] == weight[j]:
            number[group[j]] += 1.0
            total[group[j]] += weight[j]
            asked, book, largest = asked + 1, book + weight[j], max(largest, weight[j])
    for j in range(weight.size):
        if weight[j] > 0.0:
            scale = number[group[j]] / asked * book / total[group[j]]
            weight[j] = min(weight[j] * scale, largest)


@entry
def neutral_by_group(weights: Floats, group: Indices, groups: int, can_short: Flags) -> int:
    """[slots, symbols], in place: long equals short in each group where anything asked for can be short, else each group gets
    its share. Returns how often a group was closed.
    """
    ones, closed = np.ones(group.size), 0
    for slot in range(weights.shape[0]):
        both = False
        for j in range(group.size):
            both |= can_short[j] and weights[slot, j] == weights[slot, j]
        if both:
            closed += _match(weights[slot], ones, group, groups)
        else:
            _share(weights[slot], group, groups)
    return closed


@entry
def neutral_by_exposure(weight: Floats, exposure: Floats) -> int:
    """[symbols], in place: the exposures of both sides are equal. Returns 1 where the book is closed."""
    return _match(weight, exposure, np.zeros(weight.size, np.int64), 1)
