"""Volatility forecasts: the stated recursions against plain loops and `arch`, and what cannot be fitted."""

import math

import numpy as np
import pytest
from arch import arch_model
from hypothesis import given
from hypothesis import strategies as st

from tidemill.risk.volatility import (
    LEAST_EWMA,
    Floats,
    Garch,
    VolatilityParams,
    ewma_variance,
    fit_garch,
    forecast,
    horizon_variance,
    qlike,
)

PARAMS = VolatilityParams()


def simulated(bars: int, seed: int = 1) -> tuple[Floats, Floats]:
    """Returns of GARCH(1,1) with ω 2e-6, α 0.1, β 0.88, and the true variance of each."""
    chance = np.random.default_rng(seed)
    returns, variances = np.zeros(bars), np.zeros(bars)
    variance = 1e-4
    for at in range(bars):
        variances[at] = variance
        returns[at] = math.sqrt(variance) * chance.standard_normal()
        variance = 2e-6 + 0.1 * returns[at] ** 2 + 0.88 * variance
    return returns, variances


def test_ewma_is_the_weighted_mean_of_past_squares() -> None:
    returns, _ = simulated(120)
    made = ewma_variance(returns, 0.94)
    weights = 0.06 * 0.94 ** np.arange(120 - LEAST_EWMA)[::-1]
    start = np.mean(returns[:LEAST_EWMA] ** 2) * 0.94 ** (120 - LEAST_EWMA)
    assert made[-1] == pytest.approx(start + (weights * returns[LEAST_EWMA:] ** 2).sum())
    assert np.isnan(made[: LEAST_EWMA - 1]).all()
    assert np.isfinite(made[LEAST_EWMA - 1 :]).all()


def test_the_fit_is_that_of_arch_and_is_carried_on_by_the_recursion() -> None:
    returns, _ = simulated(1_200)
    garch = fit_garch(returns[:1_000], PARAMS)
    assert garch is not None
    scale = returns[:1_000].std()
    peer = arch_model(returns[:1_000] / scale, rescale=False).fit(disp="off")
    assert garch.alpha == pytest.approx(peer.params["alpha[1]"])
    assert garch.variance == pytest.approx(peer.forecast(horizon=1).variance.iloc[-1, 0] * scale**2)
    # The same parameters held over later returns, by arch's own filter.
    held = arch_model(returns / scale, rescale=False).fix(peer.params)
    made = forecast(returns, garch, 1_000, PARAMS, horizon=5)
    assert made.volatility[-1] ** 2 == pytest.approx(held.forecast(horizon=5).variance.iloc[-1, 0] * scale**2, rel=1e-3)
    assert made.horizon_volatility[-1] ** 2 == pytest.approx(
        held.forecast(horizon=5).variance.iloc[-1].sum() * scale**2, rel=1e-3
    )


def test_garch_finds_the_variance_that_it_was_simulated_with_better_than_ewma() -> None:
    returns, variances = simulated(3_000, seed=4)
    made = forecast(returns, fit_garch(returns[:2_000], VolatilityParams(window=2_000)), 2_000, PARAMS, horizon=1)
    true = variances[2_001:]
    assert qlike(true, made.volatility[2_000:-1] ** 2) < 0.5 * qlike(true, made.ewma[2_000:-1] ** 2)
    assert np.corrcoef(true, made.volatility[2_000:-1] ** 2)[0, 1] > 0.95


def test_the_variance_over_a_horizon_is_the_sum_of_the_steps_towards_the_mean() -> None:
    garch = Garch(mean=0.0, omega=2e-6, alpha=0.1, beta=0.88, variance=4e-4)
    total, step = 0.0, 4e-4
    for _ in range(7):
        total += step
        step = garch.omega + garch.persistence * step
    assert horizon_variance(4e-4, garch, 7) == pytest.approx(total)
    assert horizon_variance(4e-4, None, 7) == pytest.approx(7 * 4e-4)


def test_the_drawdown_is_that_of_random_walks() -> None:
    chance = np.random.default_rng(2)
    walks = np.cumsum(chance.normal(0.0, 0.01, (4_000, 250)), axis=1)
    walks = np.hstack([np.zeros((4_000, 1)), walks])
    drawn = (np.maximum.accumulate(walks, axis=1) - walks).max(axis=1).mean()
    made = forecast(np.full(60, 0.01), None, 0, PARAMS, horizon=250)
    # A walk in steps misses what lies between them, some 0.58 of a step.
    assert drawn == pytest.approx(made.drawdown[-1], rel=0.08)


@pytest.mark.parametrize(
    "returns",
    [
        np.zeros(0),
        np.full(500, np.nan),
        np.zeros(500),
        np.full(500, 0.01),
        np.random.default_rng(1).normal(0, 0.01, 99),
        np.full(500, np.inf),
    ],
)
def test_what_cannot_be_fitted_has_no_garch_and_no_wrong_number(returns: Floats) -> None:
    assert fit_garch(returns, PARAMS) is None
    made = forecast(returns, None, 0, PARAMS, horizon=5)
    assert len(made.volatility) == len(returns)
    assert not np.isinf(made.volatility).any()
    assert not (made.volatility[np.isfinite(made.volatility)] <= 0.0).any()


def test_a_fit_that_does_not_end_in_a_stationary_variance_is_of_no_use() -> None:
    chance = np.random.default_rng(3)
    exploding = chance.standard_normal(600) * np.exp(np.linspace(0.0, 14.0, 600))
    garch = fit_garch(exploding, PARAMS)
    assert garch is None or garch.persistence < 1.0


def test_unknown_returns_advance_nothing() -> None:
    returns, _ = simulated(400)
    garch = fit_garch(returns[:300], PARAMS)
    with_gaps = np.insert(returns, [320, 350, 350], np.nan)
    whole = forecast(returns, garch, 300, PARAMS, horizon=5)
    gapped = forecast(with_gaps, garch, 300, PARAMS, horizon=5)
    kept = np.isfinite(with_gaps)
    for one, other in zip(whole, gapped, strict=True):
        assert np.array_equal(one, other[kept], equal_nan=True)
    assert fit_garch(np.insert(returns[:300], 50, np.nan), PARAMS) == garch


@given(st.integers(0, 250), st.floats(-0.5, 0.5))
def test_later_returns_change_no_earlier_forecast(at: int, value: float) -> None:
    returns, _ = simulated(260)
    garch = Garch(mean=0.0, omega=2e-6, alpha=0.1, beta=0.88, variance=1e-4)
    altered = returns.copy()
    altered[at:] = value
    for one, other in zip(
        forecast(returns, garch, 100, PARAMS, horizon=3), forecast(altered, garch, 100, PARAMS, horizon=3), strict=True
    ):
        assert np.array_equal(one[:at], other[:at], equal_nan=True)


def test_qlike_is_zero_for_the_truth_alone_and_ignores_what_is_not_a_variance() -> None:
    true = np.array([1.0, 2.0, np.nan, 0.0, 3.0])
    assert qlike(true, np.array([1.0, 2.0, 1.0, 1.0, np.nan])) == 0.0
    assert qlike(true, np.array([1.0, 1.0, 1.0, 1.0, 1.0])) == pytest.approx(((1 - math.log(2)) + (2 - math.log(3))) / 3)
    assert math.isnan(qlike(np.zeros(3), np.ones(3)))
