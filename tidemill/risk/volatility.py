"""Forecasts of a symbol's volatility and drawdown from its own past returns: EWMA and GARCH(1,1).

    EWMA    s²[t+1] = λ s²[t] + (1 - λ) r[t]²                                  RiskMetrics (J.P. Morgan, 1996)
    GARCH   s²[t+1] = ω + α (r[t] - μ)² + β s²[t]                              Bollerslev (1986), fitted by `arch`
    over h bars, from the forecast s² of the next one:
            EWMA    h s²
            GARCH   h v + (s² - v) (1 - (α + β)^h) / (1 - α - β)               v = ω / (1 - α - β)
    expected maximum drawdown over h bars of a driftless walk of that volatility: s √(h π / 2)     Magdon-Ismail et al. (2004)

GARCH is fitted on the last `window` returns before a cut and nothing after it (in a study: one cut for each fold); from there
its variance is filtered on with the parameters held. Where a fit does not converge, or is not stationary, the symbol's EWMA
answers until the next cut. A return that is not known (NaN, infinite) advances nothing. A forecast is NaN until LEAST_EWMA
returns are known, and while all of them were zero.

Returns are simple or log returns of one symbol's own bars, in fractions; a volatility is a standard deviation for one bar, in
fractions, a variance its square. Arrays are one-dimensional, oldest first.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_EWMA = 20
# A sum of α and β above it makes a variance without a mean to return to.
_STATIONARY = 0.999
# A standard deviation below it is rounding error of a constant.
_CONSTANT = 1e-12


class VolatilityParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """decay: λ of EWMA. least, window: known returns that a fit of GARCH needs, and that it takes at most."""

    decay: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.94
    least: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 250
    window: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 1_000


class Garch(NamedTuple):
    """Fitted parameters, in fractions, and the variance that the fit left for the bar after its last."""

    mean: float
    omega: float
    alpha: float
    beta: float
    variance: float

    @property
    def persistence(self) -> float:
        return self.alpha + self.beta


class Forecasts(NamedTuple):
    """What was forecast at each bar, from returns up to and including it.

    volatility: of the next bar, GARCH's from its cut on where there is a fit, else EWMA's. horizon_volatility: of the next h
    bars together. drawdown: expected maximum drawdown over them. ewma: EWMA's volatility of the next bar.
    """

    volatility: Floats
    horizon_volatility: Floats
    drawdown: Floats
    ewma: Floats


def ewma_variance(returns: Floats, decay: float) -> Floats:
    """Variance of the next bar after each one, started with the mean square of the first LEAST_EWMA known returns."""
    made = np.full(len(returns), np.nan)
    count, total, variance = 0, 0.0, math.nan
    for at, value in enumerate(returns):
        if math.isfinite(value):
            count += 1
            if count <= LEAST_EWMA:
                total += value * value
                variance = total / LEAST_EWMA if count == LEAST_EWMA else math.nan
            else:
                variance = decay * variance + (1.0 - decay) * value * value
        made[at] = variance if variance > 0.0 else math.nan
    return made


def fit_garch(returns: Floats, params: VolatilityParams) -> Garch | None:
    """GARCH(1,1) with a constant mean and normal errors on the newest known `returns`; None where it cannot be had."""
    import warnings

    from arch import arch_model

    known = returns[np.isfinite(returns)]
    spread = float(np.std(known)) if len(known) else 0.0
    if len(known) < params.least or spread < _CONSTANT:
        return None
    scaled = known[-params.window :] / spread  # numbers near one, as the optimiser wants them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is judged below
        try:
            fit = arch_model(scaled, mean="Constant", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off", show_warning=False)
        except (ValueError, np.linalg.LinAlgError):
            return None
    mean, omega, alpha, beta = (float(fit.params[name]) for name in ("mu", "omega", "alpha[1]", "beta[1]"))
    last = float(fit.conditional_volatility[-1]) ** 2
    usable = fit.convergence_flag == 0 and all(map(math.isfinite, (mean, omega, alpha, beta, last))) and omega > 0.0
    if not usable or alpha < 0.0 or beta < 0.0 or alpha + beta > _STATIONARY:
        return None
    following = omega + alpha * (float(scaled[-1]) - mean) ** 2 + beta * last
    return Garch(mean * spread, omega * spread**2, alpha, beta, following * spread**2)


def horizon_variance(variance: float, garch: Garch | None, horizon: int) -> float:
    """Variance of the next `horizon` bars together, from that of the next one; EWMA's where `garch` is None."""
    if garch is None:
        return horizon * variance
    mean = garch.omega / (1.0 - garch.persistence)
    return horizon * mean + (variance - mean) * (1.0 - garch.persistence**horizon) / (1.0 - garch.persistence)


def forecast(returns: Floats, garch: Garch | None, cut: int, params: VolatilityParams, *, horizon: int) -> Forecasts:
    """Forecasts of one symbol at each bar. `garch` was fitted on `returns[:cut]`; before or without it EWMA answers."""
    ewma = ewma_variance(returns, params.decay)
    variance, total = ewma.copy(), horizon * ewma
    if garch is not None and cut > 0:
        filtered = garch.variance
        for at in range(cut - 1, len(returns)):
            if at >= cut and math.isfinite(returns[at]):
                filtered = garch.omega + garch.alpha * (returns[at] - garch.mean) ** 2 + garch.beta * filtered
            variance[at], total[at] = filtered, horizon_variance(filtered, garch, horizon)
    return Forecasts(np.sqrt(variance), np.sqrt(total), np.sqrt(total * math.pi / 2.0), np.sqrt(ewma))


def qlike(realised: Floats, variance: Floats) -> float:
    """Mean of realised / variance - ln(realised / variance) - 1 (Patton, 2011): 0 is perfect, lower is better.

    realised: variances that came true, for example sums of squared returns. Pairs in which either is not a positive number are
    left out; NaN when none is left.
    """
    usable = np.isfinite(realised) & np.isfinite(variance) & (realised > 0.0) & (variance > 0.0)
    if not usable.any():
        return math.nan
    ratio = realised[usable] / variance[usable]
    return float((ratio - np.log(ratio) - 1.0).mean())
