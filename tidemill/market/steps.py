"""Where a ratio of two rounded price series steps, and by how much: the arithmetic behind corporate actions."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Relative error of a quotient of two float64 that were written with all their digits.
_FLOAT_NOISE = 1e-11
_MAX_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Step:
    """At row `at` the ratio becomes `ratio` times what it was; the data allow for a relative error of `error`."""

    at: int
    ratio: float
    error: float


def rounding_unit(values: NDArray[np.float64]) -> float:
    """The unit that all `values` are multiples of: 1, 0.1, 0.01 … 1e-9; 0 where they have more digits than that."""
    for decimals in range(_MAX_DECIMALS + 1):
        scaled = values * 10.0**decimals
        if np.all(np.abs(scaled - np.round(scaled)) <= 1e-6 + 4e-16 * np.abs(scaled)):
            return float(10.0**-decimals)
    return 0.0


def ratio_steps(numerator: NDArray[np.float64], denominator: NDArray[np.float64], slack: float) -> list[Step]:
    """Steps of numerator / denominator, which is constant between them up to the rounding of both.

    Both are positive and finite, shape (rows,). Rounding says of each row in which interval the true ratio lies: numerator ±
    slack · half its unit, over the denominator. The longest stretch of rows whose intervals have a point in common is one
    level; where none is left, the ratio has provably changed. So rounding alone never makes a step, and a level is known better
    with every row.
    """
    half = slack * rounding_unit(numerator) / 2
    centre = numerator / denominator
    width = half / denominator + _FLOAT_NOISE * max(slack, 1.0) * centre
    low, high = centre - width, centre + width
    levels: list[tuple[int, float, float]] = []
    start = 0
    while start < len(centre):
        end, floor, ceiling = _stretch(low, high, start)
        levels.append((start, floor, ceiling))
        start = end
    steps = []
    for (_, floor_0, ceiling_0), (at, floor_1, ceiling_1) in pairwise(levels):
        before, after = (floor_0 + ceiling_0) / 2, (floor_1 + ceiling_1) / 2
        error = (ceiling_0 - floor_0) / (2 * before) + (ceiling_1 - floor_1) / (2 * after)
        steps.append(Step(at, after / before, error))
    return steps


def _stretch(low: NDArray[np.float64], high: NDArray[np.float64], start: int) -> tuple[int, float, float]:
    """(first row after the level that begins at `start`, greatest lower bound, least upper bound of the level)."""
    floor, ceiling = float(low[start]), float(high[start])
    size = 64
    while start < len(low):
        floors = np.maximum(np.maximum.accumulate(low[start : start + size]), floor)
        ceilings = np.minimum(np.minimum.accumulate(high[start : start + size]), ceiling)
        apart = floors > ceilings
        if apart.any():
            at = int(np.argmax(apart))
            if at:
                floor, ceiling = float(floors[at - 1]), float(ceilings[at - 1])
            return start + at, floor, ceiling
        floor, ceiling = float(floors[-1]), float(ceilings[-1])
        start += size
        size *= 2
    return len(low), floor, ceiling
