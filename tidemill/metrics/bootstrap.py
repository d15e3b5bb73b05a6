"""Confidence intervals by the stationary bootstrap of Politis & Romano (1994), for series whose neighbours are alike.

A resample is glued together from blocks of the series, of random (geometric) length with a stated mean, at random places, the
series taken as a circle; so it keeps the dependence inside a block. Seeded and deterministic. Intervals are percentiles of the
resampled statistic. Sums over a block come from cumulative sums, so a resample costs its number of blocks, not its length.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidemill.domain.errors import InputError
from tidemill.metrics.returns import usable

Floats = NDArray[np.float64]
RESAMPLES = 1_000
LEVEL = 0.95
SEED = 20_140_705
NAN = float("nan")
_FEWEST = 10


class ConfidenceInterval(NamedTuple):
    """low, high: NaN for fewer than 10 observations or no spread. block: mean length of a block, in observations."""

    low: float
    high: float
    block: float


NOT_DEFINED = ConfidenceInterval(NAN, NAN, NAN)


def block_length(observations: int, overlap: int = 1) -> float:
    """Mean length of a block: n^(1/3), the rate of Politis & White (2004), and at least twice the overlap of neighbours."""
    return float(max(round(observations ** (1.0 / 3.0)), 2 * (overlap - 1), 1))


def sharpe_interval(
    returns: ArrayLike, periods: float, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> ConfidenceInterval:
    """Of the annualised Sharpe ratio (`metrics.returns.sharpe`, whose rules for input hold here too)."""
    values = usable(returns)
    block = block_length(values.size)
    if values.size < _FEWEST or not values.std() > 1e-9 * abs(values.mean()):
        return NOT_DEFINED
    sums, squares = _resampled_sums(values, block, resamples, seed)
    mean = sums / values.size
    variance = (squares - sums * mean) / (values.size - 1)
    ratio = np.where(variance > 0.0, (mean + values.mean()) / np.sqrt(np.where(variance > 0.0, variance, 1.0)), np.nan)
    return _percentiles(ratio * math.sqrt(periods), level, block)


def mean_interval(
    values: ArrayLike, *, overlap: int = 1, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> ConfidenceInterval:
    """Of the mean of a series, such as information coefficients; `overlap`: how many neighbours share a label (its horizon)."""
    series = usable(values)
    block = block_length(series.size, overlap)
    if series.size < _FEWEST or not series.std() > 0.0:
        return NOT_DEFINED
    sums, _ = _resampled_sums(series, block, resamples, seed)
    return _percentiles(series.mean() + sums / series.size, level, block)


@lru_cache(maxsize=4)  # series of one length, such as those of many trials, are resampled alike
def blocks(length: int, block: float, resamples: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and lengths [resamples, blocks] of blocks whose lengths add up to `length`; unused ones have length 0."""
    if not (block >= 1.0 and resamples >= 1):
        raise InputError(f"A bootstrap needs blocks of at least 1 and at least 1 resample, not {block} and {resamples}.")
    random = np.random.default_rng(seed)
    expected = length / block
    count = min(length, math.ceil(expected + 8.0 * math.sqrt(expected) + 8.0))
    lengths = random.geometric(1.0 / block, (resamples, count))
    lengths[:, -1] = length  # so unlikely to be reached that it decides nothing
    before = np.cumsum(lengths, axis=1) - lengths
    starts, lengths = random.integers(0, length, (resamples, count)), np.clip(length - before, 0, lengths)
    used = int(np.count_nonzero(lengths.any(axis=0)))
    starts, lengths = np.ascontiguousarray(starts[:, :used]), np.ascontiguousarray(lengths[:, :used])
    for shared in (starts, lengths):
        shared.flags.writeable = False
    return starts, lengths


def _resampled_sums(values: Floats, block: float, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Sum and sum of squares of the centred values of each resample."""
    starts, lengths = blocks(values.size, block, resamples, seed)
    centred = values - values.mean()
    # The sum in the real part and that of squares in the imaginary one: one look-up for both.
    around = np.zeros(2 * values.size + 1, dtype=np.complex128)
    np.cumsum(np.tile(centred + 1j * centred * centred, 2), out=around[1:])
    totals = (around[starts + lengths] - around[starts]).sum(axis=1)
    return totals.real, totals.imag


def _percentiles(found: Floats, level: float, block: float) -> ConfidenceInterval:
    if not 0.0 < level < 1.0:
        raise InputError(f"A confidence level lies between 0 and 1, not {level}.")
    finite = found[np.isfinite(found)]
    if not finite.size:
        return NOT_DEFINED
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(finite, (tail, 100.0 - tail))
    return ConfidenceInterval(float(low), float(high), block)
