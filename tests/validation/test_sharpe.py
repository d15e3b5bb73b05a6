"""Sharpe ratios among many: the published example, and what can be computed in another way."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tidemill.domain.errors import InputError
from tidemill.validation.sharpe import (
    deflated_sharpe,
    expected_maximum_sharpe,
    moments,
    probabilistic_sharpe,
    sharpe_deviation,
)


def test_the_example_of_bailey_and_lopez_de_prado() -> None:
    variance = 0.5 / 250
    assert expected_maximum_sharpe(variance, 100) == pytest.approx(0.1132, abs=5e-5)
    found = deflated_sharpe(2.5 / math.sqrt(250), 1_250, variance=variance, trials=100, skew=-3.0, kurtosis=10.0)
    assert found == pytest.approx(0.9004, abs=5e-5)
    # The paper goes on: had there been 46 trials, the confidence would have been 0.9505; normal returns would have taken 88.
    assert deflated_sharpe(
        2.5 / math.sqrt(250), 1_250, variance=variance, trials=46, skew=-3.0, kurtosis=10.0
    ) == pytest.approx(0.9505, abs=5e-5)
    assert deflated_sharpe(2.5 / math.sqrt(250), 1_250, variance=variance, trials=88) == pytest.approx(0.9505, abs=5e-4)


def test_the_expected_maximum_is_that_of_many_draws() -> None:
    draws = np.random.default_rng(3).normal(0.0, 0.05, (40_000, 50)).max(axis=1)
    assert expected_maximum_sharpe(0.05**2, 50) == pytest.approx(draws.mean(), rel=0.03)  # the formula is an approximation


def test_one_trial_was_not_chosen_among_others() -> None:
    assert expected_maximum_sharpe(0.3, 1) == 0.0
    assert deflated_sharpe(0.1, 500, variance=0.3, trials=1) == probabilistic_sharpe(0.1, 500)


@pytest.mark.parametrize(("variance", "trials"), [(0.1, 0), (-0.1, 5), (math.nan, 5)])
def test_nonsense_has_no_expected_maximum(variance: float, trials: int) -> None:
    with pytest.raises(InputError):
        expected_maximum_sharpe(variance, trials)


def test_a_sharpe_ratio_at_its_benchmark_is_even_odds() -> None:
    assert probabilistic_sharpe(0.05, 300, benchmark=0.05, skew=-1.0, kurtosis=7.0) == pytest.approx(0.5)
    assert math.isnan(probabilistic_sharpe(math.nan, 300))
    assert math.isnan(probabilistic_sharpe(0.1, 1))


def test_the_deviation_of_an_estimate_is_that_of_many_samples() -> None:
    random = np.random.default_rng(8)
    samples = random.gamma(4.0, 1.0, (20_000, 250)) / 20.0 - 0.19
    whole = moments(samples.reshape(-1, 1))
    estimates = samples.mean(axis=1) / samples.std(axis=1, ddof=1)
    stated = sharpe_deviation(whole.sharpe[0], 250, whole.skew[0], whole.kurtosis[0])
    assert stated == pytest.approx(estimates.std(), rel=0.03)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 500), st.floats(1e-6, 1.0), st.floats(-0.2, 0.4))
def test_more_trials_never_raise_the_deflated_ratio(trials: int, variance: float, sharpe: float) -> None:
    fewer = deflated_sharpe(sharpe, 700, variance=variance, trials=trials)
    more = deflated_sharpe(sharpe, 700, variance=variance, trials=trials + 1)
    assert more <= fewer + 1e-12


def test_moments_are_those_of_scipy_and_leave_out_what_is_missing() -> None:
    random = np.random.default_rng(4)
    returns = random.standard_t(5, (400, 3)) * np.array([0.01, 1e-8, 1e5])
    returns[random.random((400, 3)) < 0.2] = np.nan
    found = moments(returns)
    for at in range(3):
        own = returns[np.isfinite(returns[:, at]), at]
        assert found.observations[at] == len(own)
        assert found.sharpe[at] == pytest.approx(own.mean() / own.std(ddof=1), rel=1e-10)
        assert found.skew[at] == pytest.approx(stats.skew(own), rel=1e-9)
        assert found.kurtosis[at] == pytest.approx(stats.kurtosis(own) + 3.0, rel=1e-9)


def test_what_never_moves_or_is_not_there_has_no_sharpe_ratio() -> None:
    returns = np.full((50, 3), np.nan)
    returns[:, 0] = 0.01
    returns[0, 1] = 0.5
    found = moments(returns)
    assert np.isnan(found.sharpe).all()
    assert found.observations.tolist() == [50, 1, 0]
    assert np.isnan(moments(np.empty((0, 2))).sharpe).all()
