"""Sharpe ratios that were chosen among many: how probable it is that there is skill at all.

Every Sharpe ratio here is **per period** (mean / standard deviation of the returns of one bar, ddof 1), not annualised: the
variance of the estimate depends on the number of periods. Annual = per period × √(periods a year). Kurtosis is 3 for a normal
distribution. Moments are the biased (population) ones, as in the papers.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import InputError

Floats = NDArray[np.float64]
EULER_MASCHERONI = 0.5772156649015329
_NORMAL = NormalDist()
_DEGENERATE = 1e-9  # of the mean: a smaller spread is rounding (NUMBERS, Features)
NAN = float("nan")


class Moments(NamedTuple):
    """Of each column: how many returns it has, per-period Sharpe ratio, skew, kurtosis; NaN where not defined."""

    observations: NDArray[np.int64]
    sharpe: Floats
    skew: Floats
    kurtosis: Floats


def moments(returns: Floats) -> Moments:
    """Moments of the columns of returns [times, trials]; NaN and infinite returns take no part.

    A column with fewer than two returns, or without a spread, has no Sharpe ratio.
    """
    finite = np.isfinite(returns)
    values = np.where(finite, returns, 0.0)
    count = finite.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = values.sum(axis=0) / count
        centred = np.where(finite, values - mean, 0.0)
        scale = np.abs(centred).max(axis=0, initial=0.0)
        centred /= scale  # so that neither tiny nor huge returns leave the range of float64
        squares = centred * centred
        variance = squares.sum(axis=0) / count
        deviation = scale * np.sqrt(variance * count / (count - 1))
        spread = (count > 1) & (deviation > _DEGENERATE * np.abs(mean))
        skew = (squares * centred).sum(axis=0) / count / variance**1.5
        kurtosis = (squares * squares).sum(axis=0) / count / variance**2
        sharpe = mean / deviation
    return Moments(count.astype(np.int64), *(np.where(spread, found, np.nan) for found in (sharpe, skew, kurtosis)))


def sharpe_deviation(sharpe: float, observations: int, skew: float = 0.0, kurtosis: float = 3.0) -> float:
    """Standard deviation of an estimated Sharpe ratio: √((1 − γ₃·SR + (γ₄ − 1)/4·SR²) / (T − 1)).

    Mertens (2002), as in Bailey & López de Prado (2012), "The Sharpe ratio efficient frontier", equation 8. NaN for fewer than
    two observations, or where the moments contradict each other.
    """
    variance = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    if observations < 2 or not variance > 0.0:
        return NAN
    return math.sqrt(variance / (observations - 1))


def probabilistic_sharpe(
    sharpe: float, observations: int, *, benchmark: float = 0.0, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Probability that the true Sharpe ratio is above `benchmark`: Φ((SR − SR*) / σ(SR)).

    Bailey & López de Prado (2012), "The Sharpe ratio efficient frontier", equation 11. NaN where `sharpe_deviation` is.
    """
    deviation = sharpe_deviation(sharpe, observations, skew, kurtosis)
    if not (math.isfinite(deviation) and math.isfinite(sharpe) and math.isfinite(benchmark)):
        return NAN
    return _NORMAL.cdf((sharpe - benchmark) / deviation)


def expected_maximum_sharpe(variance: float, trials: int) -> float:
    """SR₀: what the best of N trials without any skill shows on average.

    √V · ((1 − γ)·Φ⁻¹(1 − 1/N) + γ·Φ⁻¹(1 − 1/(N·e))), γ the Euler–Mascheroni constant: Bailey & López de Prado (2014), "The
    deflated Sharpe ratio", equation 1. variance: of the Sharpe ratios of the trials. 0 for one trial, which was not chosen
    among others. InputError for fewer than one trial or a negative variance.
    """
    if trials < 1 or not variance >= 0.0:
        raise InputError(
            f"{trials} trials with a variance of {variance} have no expected maximum. "
            "Give at least 1 trial and a variance of at least 0."
        )
    if trials == 1:
        return 0.0
    first = _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    second = _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * ((1.0 - EULER_MASCHERONI) * first + EULER_MASCHERONI * second)


def deflated_sharpe(
    sharpe: float, observations: int, *, variance: float, trials: int, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Probability that the true Sharpe ratio is above what the best of N trials without skill would show.

    `probabilistic_sharpe` against SR₀: Bailey & López de Prado (2014), "The deflated Sharpe ratio", equation 2. Their example:
    SR 2.5 a year of 250 days, V ½ a year, T 1,250, γ₃ −3, γ₄ 10, N 100 gives SR₀ 0.1132 a day and 0.9004.
    """
    level = expected_maximum_sharpe(variance, trials)
    return probabilistic_sharpe(sharpe, observations, benchmark=level, skew=skew, kurtosis=kurtosis)
