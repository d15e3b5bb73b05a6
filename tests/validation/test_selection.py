"""What a choice among trials is worth, from the number and variety of what was tried."""

import math

import numpy as np
import pytest

from tidemill.validation.selection import Estimate, Selection, select
from tidemill.validation.sharpe import deflated_sharpe, moments, probabilistic_sharpe


def noise(trials: int, length: int = 400, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.01, (length, trials))


def estimate(sharpe: float = 0.1) -> Estimate:
    return Estimate(sharpe=sharpe, observations=400, skew=-0.4, kurtosis=5.0)


def test_both_numbers_of_trials_stand_beside_each_other() -> None:
    ideas = noise(5)
    copies = np.repeat(ideas, 8, axis=1) + noise(40, seed=2) * 0.1
    sharpes = moments(copies).sharpe
    found = select(sharpes, copies)
    assert (found.trials, found.clusters) == (40, 5)
    assert found.variance == pytest.approx(sharpes.var(ddof=1))
    trial = estimate()
    expected = deflated_sharpe(0.1, 400, variance=found.variance, trials=40, skew=-0.4, kurtosis=5.0)
    assert found.deflated(trial) == pytest.approx(expected)
    assert found.expected_maximum > found.expected_maximum_clustered


def test_one_trial_was_not_chosen_and_has_no_overfitting() -> None:
    alone = noise(1)
    found = select(moments(alone).sharpe, alone)
    assert (found.trials, found.clusters, found.overfitting) == (1, 1, None)
    assert found.deflated(estimate()) == probabilistic_sharpe(0.1, 400, skew=-0.4, kurtosis=5.0)
    assert math.isnan(found.pbo_when_best(0))


def test_trials_of_another_time_and_those_that_never_traded_take_no_part_in_pbo() -> None:
    returns = noise(6)
    returns[:200, 4] = np.nan
    returns[:, 5] = 0.0
    found = select(moments(returns).sharpe, returns)
    assert found.compared == (0, 1, 2, 3)
    assert found.overfitting is not None
    assert found.overfitting.times == 400
    assert found.trials == 6
    late = select(moments(returns).sharpe, returns, anchor=np.array([4]))
    assert late.compared == (0, 1, 2, 3, 4)
    assert late.overfitting is not None
    assert late.overfitting.times == 192
    few = select(moments(returns).sharpe, returns, competitors=np.array([1, 3]))
    assert few.compared == (1, 3)
    assert not math.isnan(few.pbo_when_best(3))
    assert math.isnan(few.pbo_when_best(0))


def test_a_ratio_that_is_not_defined_is_not_deflated() -> None:
    found = Selection(trials=3, clusters=2, variance=0.01, cluster_variance=0.01)
    assert math.isnan(found.deflated(estimate(math.nan)))
    assert math.isnan(found.deflated_clustered(estimate(math.nan)))


def test_nothing_at_all_is_one_trial_without_a_verdict() -> None:
    found = select(np.array([]), np.empty((0, 0)))
    assert (found.trials, found.clusters, found.overfitting) == (1, 1, None)
    assert found.expected_maximum == 0.0
