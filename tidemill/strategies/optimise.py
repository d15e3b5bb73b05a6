"""The mean-variance problem through skfolio, whose import takes seconds and so is done at the first problem."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.linear_algebra import one_thread
from tidemill.strategies.past import Floats, volatility

_NOTHING = 1e-6  # of equity: what an interior-point solver leaves where it means zero


class Covariance(NamedTuple):
    """Shrunk covariance of the symbols with enough history. place: of each symbol its row here, −1 for none. deviation: of all
    symbols, NaN for none.
    """

    matrix: Floats
    place: NDArray[np.int64]
    deviation: Floats

    def among(self, symbols: NDArray[np.int64]) -> Floats:
        """The matrix of these symbols; each must have a deviation."""
        rows = self.place[symbols]
        return self.matrix[np.ix_(rows, rows)]


def shrunk_covariance(window: Floats, least: int) -> Covariance:
    """Ledoit and Wolf's estimate over `window` [bars, symbols]; a bar without a return counts as none.

    Symbols with fewer than `least` returns, or without spread, are left out.
    """
    able = np.flatnonzero(np.isfinite(volatility(window, least)))
    place = np.full(window.shape[1], -1, dtype=np.int64)
    place[able] = np.arange(len(able))
    deviation = np.full(window.shape[1], np.nan)
    if not len(able):
        return Covariance(np.zeros((0, 0)), place, deviation)
    from skfolio.moments import LedoitWolf

    with one_thread():
        found = LedoitWolf().fit(np.nan_to_num(window[:, able], nan=0.0)).covariance_
    matrix = np.asarray(found, dtype=np.float64)
    deviation[able] = np.sqrt(np.diag(matrix))
    return Covariance(matrix, place, deviation)


class Bounds(NamedTuple):
    """side: 1 for weights in [0, cap], −1 for [−cap, 0]. budget: of each side. neutral: long and short must be equal."""

    side: Floats
    budget: float
    cap: float
    neutral: bool


def optimal_weights(expected: Floats, covariance: Floats, bounds: Bounds, risk_aversion: float) -> Floats | None:
    """Weights that maximise `expected`·w − risk_aversion · w'Σw; None where the solver finds none."""
    if not (np.isfinite(expected).all() and np.isfinite(covariance).all()):
        return None
    from cvxpy.error import SolverError
    from skfolio import RiskMeasure
    from skfolio.optimization import MeanRisk, ObjectiveFunction
    from skfolio.prior import EmpiricalPrior

    known_mean, known_covariance = _estimators()
    side, budget, cap = bounds.side, bounds.budget, bounds.cap
    room: dict[str, float | None] = {"budget": None, "min_budget": -budget, "max_budget": budget}
    if bounds.neutral:
        room = {"budget": 0.0, "max_long": budget, "max_short": budget}
    problem = MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
        risk_measure=RiskMeasure.VARIANCE,
        risk_aversion=risk_aversion,
        prior_estimator=EmpiricalPrior(mu_estimator=known_mean(expected), covariance_estimator=known_covariance(covariance)),
        min_weights=np.where(side > 0.0, 0.0, -cap),
        max_weights=np.where(side > 0.0, cap, 0.0),
        **room,
    )
    try:
        with warnings.catch_warnings(), one_thread():
            warnings.simplefilter("ignore")  # an inaccurate solution is judged below, not announced
            problem.fit(np.zeros((2, len(side))))
    except (SolverError, ValueError, np.linalg.LinAlgError):
        return None
    return _judged(np.asarray(problem.weights_, dtype=np.float64), bounds)


def _judged(weights: Floats, bounds: Bounds) -> Floats | None:
    """`weights` without dust and inside their bounds; None where they break a bound by more than a solver's tolerance."""
    side, budget, cap, _ = bounds
    if not np.isfinite(weights).all() or (weights * side < -1e-4).any() or (np.abs(weights) > cap + 1e-4).any():
        return None
    if any(np.abs(weights[side == sign]).sum() > budget + 1e-4 for sign in (1.0, -1.0)):
        return None
    kept = np.where(weights * side > _NOTHING, np.abs(weights), 0.0)
    return side * np.minimum(kept, cap)


@cache
def _estimators() -> tuple[Any, Any]:
    """skfolio's seats for moments that are known already. Built at the first use: their base classes cost seconds to import."""
    from skfolio.moments import BaseCovariance, BaseMu

    class KnownMean(BaseMu):  # type: ignore[misc]  # skfolio has no types
        def __init__(self, mean: Floats) -> None:
            self.mean = mean

        def fit(self, X: Any, y: Any = None, **_: Any) -> KnownMean:
            self.mu_ = self.mean
            return self

    class KnownCovariance(BaseCovariance):  # type: ignore[misc]  # skfolio has no types
        def __init__(self, matrix: Floats) -> None:
            self.matrix = matrix

        def fit(self, X: Any, y: Any = None, **_: Any) -> KnownCovariance:
            self.covariance_ = self.matrix
            return self

    return KnownMean, KnownCovariance
