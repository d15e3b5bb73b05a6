"""Scoring rows by trees: a few rows or trees side by side go down level by level, so that no step waits for the one before.

A row's sum is taken in the order of the trees, in float64: the bits of LightGBM's own prediction, whatever rows are beside it.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry, kernel

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.float32]
Places: TypeAlias = NDArray[np.uint64]
# Pairs of a row and a tree that go down together: 16 rows of 100 features stay within the first-level cache.
_LANES = 16
_CHILD = np.uint64(32)
_PLACE = np.uint64(2**32 - 1)
# What LightGBM takes for zero.
_ZERO = np.float32(1e-35)


@kernel
def spread(rows: Numbers, first: int, count: int, made: Numbers) -> None:
    """Two numbers for each feature of `count` rows: see `trees.table`."""
    width = rows.shape[1]
    for row in range(count):
        for feature in range(width):
            value, place = rows[first + row, feature], 2 * (row * width + feature)
            value = np.float32(0.0) if abs(value) <= _ZERO else value
            known = value == value
            made[place] = value if known else np.float32(-np.inf)
            made[place + 1] = value if known else np.float32(np.inf)


@kernel
def descend(levels: int, lanes: int, nodes: Places, starts: Places, branches: Places, thresholds: Numbers,
            numbers: Numbers) -> None:  # fmt: skip
    """Every lane goes down `levels` levels; one that has reached its leaf stays there."""
    for _ in range(levels):
        for lane in range(lanes):
            node, start = nodes[lane], starts[lane]
            branch = branches[node]
            above = numbers[start + (branch & _PLACE)] > thresholds[node]
            nodes[lane] = (branch >> _CHILD) + np.uint64(above)


@entry
def score(rows: Numbers, roots: NDArray[np.int64], depths: NDArray[np.int64], branches: Places, thresholds: Numbers,
          values: Floats, made: Floats) -> None:  # fmt: skip
    """made[rows] := the sum of the trees' leaves for rows [rows, features], NaN where unknown. Others: `trees.table.Table`."""
    count, width = rows.shape
    together = max(min(count, _LANES), 1)
    side_by_side = _LANES // together
    numbers = np.empty(2 * together * width, dtype=np.float32)
    nodes, starts = np.empty(_LANES, dtype=np.uint64), np.empty(_LANES, dtype=np.uint64)
    for first in range(0, count, together):
        here = min(together, count - first)
        spread(rows, first, here, numbers)
        made[first : first + here] = 0.0
        for tree in range(0, len(roots), side_by_side):
            last = min(tree + side_by_side, len(roots))
            lane = 0
            for one in range(tree, last):
                for row in range(here):
                    nodes[lane], starts[lane] = np.uint64(roots[one]), np.uint64(2 * row * width)
                    lane += 1
            descend(depths[tree:last].max(), lane, nodes, starts, branches, thresholds, numbers)
            for place in range(lane):
                made[first + place % here] += values[nodes[place]]
