"""Whether what is claimed to be likely comes true as often: the tenths of a probability map, held jointly against outcomes.

Outcomes of one time move together, and those of neighbouring times share a label, so neither are independent. The sums of
outcome − claim over blocks of time nearly are: their studentised bootstrap (Hall, 1992) gives the largest distance of ten that
chance explains.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

TENTHS = 10
LEVEL = 0.99
RESAMPLES = 4_000
SEED = 19_720_601
# Of one block to the horizon, and the fewest of them: with fewer the spread of a tenth is not known well enough.
_LENGTHS, _FEWEST = 4, 20


class Tenth(NamedTuple):
    """claimed, came_true: means over its outcomes. distance: their difference, in standard errors."""

    outcomes: int
    claimed: float
    came_true: float
    distance: float


class Calibration(NamedTuple):
    """allowed: what the largest distance of a true map exceeds with a chance of 1 − `LEVEL`; None: not judged. times: bar times
    with an outcome; needed: how many there must be to judge it.
    """

    tenths: tuple[Tenth, ...]
    allowed: float | None
    times: int
    needed: int

    @property
    def holds(self) -> bool | None:
        """False where the map is refuted; None where there are too few times to judge it."""
        return None if self.allowed is None else max(abs(one.distance) for one in self.tenths) <= self.allowed


def tenths_of(predictions: Floats) -> Indices:
    """0 to 9: in which tenth of these predictions each lies; all are as large as can be, whatever is tied."""
    order = np.argsort(predictions, kind="stable")
    made = np.empty(len(predictions), dtype=np.int64)
    made[order] = np.arange(len(predictions)) * TENTHS // max(len(predictions), 1)
    return made


def calibration(claimed: Floats, came_true: Flags, tenth: Indices, slot: Indices, horizon: int) -> Calibration:
    """Of probabilities claimed for outcomes. tenth: of each, see `tenths_of`. slot: the bar time of each, counted from 0.

    horizon: bars that an outcome takes, so that this many neighbouring times share a part of it.
    """
    counts = np.bincount(tenth, minlength=TENTHS)
    sums = _block_sums(came_true - claimed, tenth, slot, horizon)
    judged = sums.shape[1] >= _FEWEST
    distances = _distances(sums, horizon) if judged else np.full(TENTHS, np.nan)
    shares = (np.bincount(tenth, values, TENTHS) / np.maximum(counts, 1) for values in (claimed, came_true))
    told = zip(counts.tolist(), *(share.tolist() for share in shares), distances.tolist(), strict=True)
    allowed = _allowed(sums) if judged else None
    return Calibration(tuple(Tenth(*one) for one in told), allowed, _times(slot), _FEWEST * _LENGTHS * horizon)


def _times(slot: Indices) -> int:
    return int(slot.max(initial=-1)) + 1


def _block_sums(excess: Floats, tenth: Indices, slot: Indices, horizon: int) -> Floats:
    """[TENTHS, blocks]: sums over stretches of time that are `_LENGTHS` horizons long or a little longer."""
    times = _times(slot)
    blocks = max(times // (_LENGTHS * horizon), 1)
    block = slot * blocks // max(times, 1)
    sums: Floats = np.bincount(tenth * blocks + block, weights=excess, minlength=TENTHS * blocks).astype(np.float64)
    return sums.reshape(TENTHS, blocks)


def _distances(sums: Floats, horizon: int) -> Floats:
    """Labels of h bars share h − k of them k bars apart, across the border of two blocks too: a block of L bars holds
    L·h − (h² − 1) / 3 of the variance, and L·h is its part of the whole's.
    """
    whole = _LENGTHS * horizon * horizon
    lost = whole / (whole - (horizon * horizon - 1) / 3.0)
    made: Floats = _studentised(sums.sum(axis=1), sums) / np.sqrt(lost)
    return made


def _allowed(sums: Floats) -> float:
    random, blocks = np.random.default_rng(SEED), sums.shape[1]
    drawn = sums[:, random.integers(0, blocks, (RESAMPLES, blocks))]
    found = _studentised(drawn.sum(axis=-1) - sums.sum(axis=1)[:, None], drawn)
    return float(np.quantile(np.abs(found).max(axis=0), LEVEL))


def _studentised(total: Floats, sums: Floats) -> Floats:
    """In standard errors of a sum of as many blocks."""
    error = np.sqrt(sums.shape[-1] * sums.var(axis=-1, ddof=1))
    made: Floats = np.divide(total, error, out=np.zeros_like(total), where=error > 0.0)
    return made
