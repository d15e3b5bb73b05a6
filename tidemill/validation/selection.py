"""What a choice among trials is worth: their number, raw and clustered, the deflated Sharpe ratio of each, and PBO."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidemill.validation.overfitting import Overfitting, block_count, cluster, cluster_sharpes, probability_of_overfitting
from tidemill.validation.sharpe import NAN, Floats, deflated_sharpe, expected_maximum_sharpe

Indices = NDArray[np.int64]

# A trial takes part in PBO when it has returns at this share of the times of the trials that are looked at, or more.
COVERAGE = 0.95


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The Sharpe ratio of one trial, per period, with the moments that its error depends on; NaN where not defined."""

    sharpe: float
    observations: int
    skew: float
    kurtosis: float


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """How many trials competed. Sharpe ratios are per period.

    trials: N as counted. clusters: how many of them differ. variance, cluster_variance: of the Sharpe ratios of the trials and
    of the clusters' portfolios; 0 where there is but one. overfitting: of the trials that ever traded, over the times that they
    have in common; None when there are fewer than two or too few times. compared: columns of the matrix that took part in it.
    """

    trials: int
    clusters: int
    variance: float
    cluster_variance: float
    overfitting: Overfitting | None = None
    compared: tuple[int, ...] = ()

    @property
    def expected_maximum(self) -> float:
        """What the best of all trials would show without skill."""
        return expected_maximum_sharpe(self.variance, max(self.trials, 1))

    @property
    def expected_maximum_clustered(self) -> float:
        return expected_maximum_sharpe(self.cluster_variance, max(self.clusters, 1))

    def deflated(self, trial: Estimate) -> float:
        """Deflated Sharpe ratio by the raw number of trials; NaN where the Sharpe ratio is."""
        return _deflated(trial, self.variance, self.trials)

    def deflated_clustered(self, trial: Estimate) -> float:
        """The same by the number of clusters, and the variance among them."""
        return _deflated(trial, self.cluster_variance, self.clusters)

    def pbo_when_best(self, column: int) -> float:
        """`Overfitting.pbo_when_best` of a column of the matrix; NaN when it took no part."""
        if self.overfitting is None or column not in self.compared:
            return NAN
        return self.overfitting.pbo_when_best(self.compared.index(column))


def select(sharpes: Floats, returns: Floats, *, anchor: Indices | None = None, competitors: Indices | None = None) -> Selection:
    """The selection among trials.

    sharpes: of every counted trial, NaN where not defined. returns: [times, configurations], one column for each distinct
    configuration (a configuration evaluated on several versions of the data has one: it is one cluster by definition), NaN
    where it has none. anchor: columns over whose times PBO is found. competitors: columns that may take part in
    it. None: all.
    """
    labels, every = cluster(returns), np.arange(returns.shape[1])
    overfitting, compared = _overfitting(
        returns, every if anchor is None else anchor, every if competitors is None else competitors
    )
    return Selection(
        trials=max(len(sharpes), 1),
        clusters=max(int(labels.max(initial=-1)) + 1, 1),
        variance=_variance(sharpes),
        cluster_variance=_variance(cluster_sharpes(returns, labels)),
        overfitting=overfitting,
        compared=compared,
    )


def _overfitting(returns: Floats, anchor: Indices, competitors: Indices) -> tuple[Overfitting | None, tuple[int, ...]]:
    times = np.isfinite(returns[:, anchor]).any(axis=1)
    if not times.any():
        return None, ()
    own = returns[times][:, competitors]
    finite = np.isfinite(own)
    moves = (np.abs(np.where(finite, own, 0.0)) > 0.0).any(axis=0)
    columns = competitors[(finite.mean(axis=0) >= COVERAGE) & moves]
    matrix = returns[times][:, columns]
    matrix = matrix[np.isfinite(matrix).all(axis=1)]
    blocks = block_count(len(matrix), len(columns))
    if len(columns) < 2 or blocks < 2:
        return None, ()
    return probability_of_overfitting(matrix, blocks), tuple(columns.tolist())


def _variance(sharpes: Floats) -> float:
    known = sharpes[np.isfinite(sharpes)]
    return float(known.var(ddof=1)) if known.size > 1 else 0.0


def _deflated(trial: Estimate, variance: float, trials: int) -> float:
    if not math.isfinite(trial.sharpe):
        return NAN
    return deflated_sharpe(
        trial.sharpe, trial.observations, variance=variance, trials=max(trials, 1), skew=trial.skew, kurtosis=trial.kurtosis
    )
