"""The test of a probability map: right ones pass as often as is said, wrong ones are caught, by outcomes that move together."""

import numpy as np
import pytest
from scipy.stats import beta, norm

from tidemill.metrics.calibration import LEVEL, TENTHS, Calibration, calibration, tenths_of

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def judged(
    seed: int, wrong: str = "", *, times: int = 600, symbols: int = 40, horizon: int = 5, market: float = 0.5
) -> Calibration:
    """Predictions that last, labels of `horizon` bars that share a market and overlap, and the map that is true of them.

    wrong: shifted by 20 points, surer than is true, or of the other sign.
    """
    random = np.random.default_rng(seed)
    predictions = np.empty((times, symbols))
    predictions[0] = random.normal(size=symbols)
    for at in range(1, times):
        predictions[at] = 0.9 * predictions[at - 1] + np.sqrt(1.0 - 0.81) * random.normal(size=symbols)
    alone = random.normal(size=(times + horizon, symbols))
    steps = np.sqrt(market) * random.normal(size=(times + horizon, 1)) + np.sqrt(1.0 - market) * alone
    path = np.vstack([np.zeros((1, symbols)), np.cumsum(steps, axis=0)])
    labels = 0.25 * predictions + (path[1 + horizon :] - path[1 : times + 1]) / np.sqrt(horizon)
    slope = {"surer": 1.2, "turned": -0.25}.get(wrong, 0.25)
    claimed = norm.cdf(slope * predictions) + (0.2 if wrong == "shifted" else 0.0)
    slot = np.repeat(np.arange(times), symbols)
    tenth = tenths_of(predictions.ravel())
    return calibration(claimed.ravel(), labels.ravel() > 0.0, tenth, slot, horizon)


@pytest.mark.parametrize("case", [{}, {"horizon": 1, "times": 200}])
def test_a_right_map_is_refused_hardly_ever(case: dict[str, int]) -> None:
    assert sum(judged(seed, **case).holds is False for seed in range(40)) <= 2


@pytest.mark.parametrize("wrong", ["shifted", "surer", "turned"])
def test_a_wrong_map_is_caught(wrong: str) -> None:
    assert all(judged(seed, wrong).holds is False for seed in range(5))


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    "case", [{}, {"horizon": 1, "symbols": 20}, {"market": 0.8}, {"symbols": 5}, {"times": 2_200, "horizon": 24}]
)
def test_a_right_map_is_refused_with_the_chance_that_is_said(case: dict[str, int]) -> None:
    """Clopper and Pearson (1934): what was counted must not speak against 1 %."""
    draws = 1_500
    refused = sum(judged(seed, **case).holds is False for seed in range(draws))
    assert refused == 0 or beta.ppf(0.01, refused, draws - refused + 1) <= 1.0 - LEVEL, refused


@pytest.mark.long
@pytest.mark.parametrize("wrong", ["shifted", "surer", "turned"])
def test_a_wrong_map_is_caught_nearly_always(wrong: str) -> None:
    assert sum(judged(seed, wrong).holds is False for seed in range(200)) >= 190


def test_tenths_are_of_one_size_and_in_order_whatever_is_tied() -> None:
    predictions = np.random.default_rng(3).normal(size=1_003).round(1)
    tenth = tenths_of(predictions)
    assert set(np.bincount(tenth, minlength=TENTHS)) <= {100, 101}
    assert all(predictions[tenth == at].max() <= predictions[tenth == at + 1].min() for at in range(TENTHS - 1))
    assert tenths_of(np.empty(0)).tolist() == []


def test_shares_are_told_and_too_few_times_are_not_judged() -> None:
    few = judged(1, times=70, symbols=30)
    assert few.holds is None
    assert sum(one.outcomes for one in few.tenths) == 70 * 30
    claimed = [one.claimed for one in few.tenths]
    assert claimed == sorted(claimed)
    nothing = calibration(*(np.empty(0) for _ in range(2)), *(np.empty(0, dtype=np.int64) for _ in range(2)), 5)
    assert (nothing.holds, {one.outcomes for one in nothing.tenths}) == (None, {0})


def test_an_outcome_that_was_certain_and_came_is_no_distance() -> None:
    slot = np.repeat(np.arange(200), 10)
    certain = calibration(np.ones(2_000), np.ones(2_000, dtype=np.bool_), slot % TENTHS, slot, 1)
    assert certain.holds is True
