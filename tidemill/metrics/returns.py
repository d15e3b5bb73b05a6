"""Performance of a series of returns: array in, number out. Conventions as in empyrical (simple returns, risk-free
rate 0).

Input of every function: simple returns of equal periods, as fractions (0.01 is one percent), in time order; anything
that numpy reads as one row of float64. NaN, infinite and absurd returns (beyond 1e12) are left out before anything
else, as if those periods did not exist. What is not defined (no returns, one return where a spread is needed, no loss
where one divides by losses, returns that never change where one divides by their spread) is NaN, never an exception
or a warning. An account that lost everything stays at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidemill.domain.errors import InputError

Floats = NDArray[np.float64]
NAN = float("nan")
_DEGENERATE = 1e-9  # of the mean: a smaller spread is rounding (NUMBERS, Features)
_LARGEST = 1e12  # a larger return is a broken number
_TRADING_DAYS = 252.0


def usable(returns: ArrayLike) -> Floats:
    """The returns that are numbers, in order. InputError if it is not one row of numbers."""
    try:
        values = np.asarray(returns, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise InputError("Returns must be numbers, such as 0.01 for one percent.") from exc
    if values.ndim != 1:
        raise InputError(f"Returns must be one row of numbers, not an array of shape {values.shape}.")
    return values[np.abs(values) <= _LARGEST]  # NaN compares false


def growth(returns: ArrayLike) -> Floats:
    """Value of 1 after each period, length of the usable returns; from the first loss of everything on it is 0."""
    factors = np.maximum(1.0 + usable(returns), 0.0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.multiply.accumulate(factors)


def drawdown(returns: ArrayLike) -> Floats:
    """Share below the highest value so far after each period (≤ 0); the start counts as a high, as in empyrical."""
    value = growth(returns)
    high = np.maximum.accumulate(np.concatenate(([1.0], value)))[1:]
    with np.errstate(invalid="ignore"):
        fallen = value / high - 1.0
    return np.where(np.isfinite(fallen), fallen, 0.0)


def _spread(values: Floats) -> float:
    """Sample standard deviation (ddof 1); NaN for fewer than two values or when it is rounding alone."""
    if values.size < 2:
        return NAN
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = float(values.std(ddof=1))
        mean = abs(float(values.mean()))
    return deviation if math.isfinite(deviation) and deviation > _DEGENERATE * mean else NAN


def _ratio(above: float, below: float) -> float:
    return above / below if below != 0.0 and math.isfinite(above) and math.isfinite(below) else NAN


def total_return(returns: ArrayLike) -> float:
    """Compound return over all periods: ∏(1 + r) − 1. Not annualised. empyrical `cum_returns_final`."""
    value = growth(returns)
    return float(value[-1]) - 1.0 if value.size else NAN


def annual_return(returns: ArrayLike, periods: float) -> float:
    """Compound growth a year: (1 + total)^(periods / n) − 1. empyrical `annual_return` (CAGR)."""
    value = growth(returns)
    if not value.size:
        return NAN
    exponent = periods / value.size
    if value[-1] <= 0.0:
        return -1.0
    power = exponent * math.log(float(value[-1])) if math.isfinite(value[-1]) else math.inf
    return math.expm1(power) if power < 700.0 else NAN


def annual_volatility(returns: ArrayLike, periods: float) -> float:
    """Sample standard deviation × √periods. 0 for constant returns, NaN below two. empyrical `annual_volatility`."""
    values = usable(returns)
    if values.size < 2:
        return NAN
    spread = _spread(values)
    return spread * math.sqrt(periods) if math.isfinite(spread) else 0.0


def sharpe(returns: ArrayLike, periods: float) -> float:
    """mean / sample standard deviation × √periods; NaN for constant returns. empyrical `sharpe_ratio`."""
    values = usable(returns)
    return _ratio(float(values.mean()), _spread(values)) * math.sqrt(periods) if values.size else NAN


def sortino(returns: ArrayLike, periods: float) -> float:
    """mean × periods / (√mean(min(r, 0)²) × √periods); NaN without a loss. empyrical `sortino_ratio`."""
    values = usable(returns)
    if values.size < 2:
        return NAN
    with np.errstate(over="ignore"):
        downside = math.sqrt(float(np.mean(np.minimum(values, 0.0) ** 2)))
    return _ratio(float(values.mean()), downside) * math.sqrt(periods)


def max_drawdown(returns: ArrayLike) -> float:
    """The deepest `drawdown`, ≤ 0. empyrical `max_drawdown`."""
    fallen = drawdown(returns)
    return float(fallen.min()) if fallen.size else NAN


def calmar(returns: ArrayLike, periods: float) -> float:
    """annual_return / |max_drawdown|; NaN without a drawdown. empyrical `calmar_ratio`."""
    deepest = max_drawdown(returns)
    return _ratio(annual_return(returns, periods), abs(deepest)) if deepest < 0.0 else NAN


def omega(returns: ArrayLike) -> float:
    """Sum of gains / sum of losses, both against 0; NaN without a loss or with fewer than two returns. empyrical
    `omega_ratio`.
    """
    values = usable(returns)
    return profit_factor(values) if values.size >= 2 else NAN


def tail_ratio(returns: ArrayLike) -> float:
    """|95th percentile| / |5th percentile|, linear interpolation; NaN when the latter is 0. empyrical `tail_ratio`."""
    values = usable(returns)
    if not values.size:
        return NAN
    low, high = np.percentile(values, (5, 95))
    return _ratio(abs(float(high)), abs(float(low)))


def value_at_risk(returns: ArrayLike, cutoff: float = 0.05) -> float:
    """The return that a share `cutoff` of periods falls below: a percentile, negative for a loss. empyrical `value_at_risk`."""
    values = usable(returns)
    return float(np.percentile(values, 100.0 * cutoff)) if values.size else NAN


def conditional_value_at_risk(returns: ArrayLike, cutoff: float = 0.05) -> float:
    """Mean of the worst int((n − 1) · cutoff) + 1 returns. empyrical `conditional_value_at_risk`."""
    values = usable(returns)
    if not values.size:
        return NAN
    last = int((values.size - 1) * cutoff)
    return float(np.partition(values, last)[: last + 1].mean())


def _standard_moment(returns: ArrayLike, order: int) -> float:
    """Population moment of the returns in units of their spread; NaN for constant returns."""
    values = usable(returns)
    if not math.isfinite(_spread(values)):
        return NAN
    centred = values - values.mean()
    scale = float(np.abs(centred).max())
    centred = centred / scale  # so that neither tiny nor huge returns leave the range of float64
    moment, variance = float(np.mean(centred**order)), float(np.mean(centred**2))
    return moment / math.pow(variance, order / 2)


def skew(returns: ArrayLike) -> float:
    """Third standardised moment, biased as `scipy.stats.skew` and pyfolio have it; NaN for constant returns."""
    return _standard_moment(returns, 3)


def excess_kurtosis(returns: ArrayLike) -> float:
    """Fourth standardised moment less 3, biased as `scipy.stats.kurtosis` and pyfolio have it; NaN for constant returns."""
    return _standard_moment(returns, 4) - 3.0


def win_rate(returns: ArrayLike) -> float:
    """Share of positive returns among those that are not zero (a flat period is neither won nor lost); NaN without any."""
    values = usable(returns)
    decided = values[values != 0.0]
    return float(np.count_nonzero(decided > 0.0)) / decided.size if decided.size else NAN


def profit_factor(returns: ArrayLike) -> float:
    """Sum of positive returns / |sum of negative ones|; NaN without a loss."""
    values = usable(returns)
    return _ratio(float(values[values > 0.0].sum()), -float(values[values < 0.0].sum()))


def _metrics(periods: float) -> dict[str, Callable[[Floats], float]]:
    return {
        "total_return": total_return,
        "annual_return": lambda values: annual_return(values, periods),
        "annual_volatility": lambda values: annual_volatility(values, periods),
        "sharpe": lambda values: sharpe(values, periods),
        "sortino": lambda values: sortino(values, periods),
        "max_drawdown": max_drawdown,
        "calmar": lambda values: calmar(values, periods),
        "omega": omega,
        "tail_ratio": tail_ratio,
        "value_at_risk_95": value_at_risk,
        "conditional_value_at_risk_95": conditional_value_at_risk,
        "skew": skew,
        "excess_kurtosis": excess_kurtosis,
        "win_rate": win_rate,
        "profit_factor": profit_factor,
    }


def performance_metrics(returns: ArrayLike, periods_per_year: float = _TRADING_DAYS) -> dict[str, float | None]:
    """The 15 metrics of `tidemill performance metrics`, by name; None where a metric is not defined.

    periods_per_year: returns in a year (`tidemill.calendars` tells). Raises InputError if `returns` is not one
    row of numbers or `periods_per_year` not above 0.
    """
    if not 0.0 < periods_per_year < math.inf:
        raise InputError("The number of periods in a year must be above 0, such as 252 for daily returns of stocks.")
    values = usable(returns)
    found = {name: measure(values) for name, measure in _metrics(periods_per_year).items()}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
