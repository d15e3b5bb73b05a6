"""Drift measures against textbook arithmetic."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tidemill.metrics.drift import MOVED, mean_shift, population_stability_index

RANDOM = np.random.default_rng(3)


def by_pandas(reference: np.ndarray, current: np.ndarray) -> float:
    """The index from shares counted by pandas, for samples without ties or gaps."""
    edges = [-np.inf, *np.quantile(reference, np.linspace(0, 1, 11)[1:-1]), np.inf]
    shares = [
        pd.Series(pd.cut(values, edges)).value_counts(normalize=True, sort=False).to_numpy() for values in (reference, current)
    ]
    expected, found = (np.maximum(share, 1e-4) for share in shares)
    return float(((found - expected) * np.log(found / expected)).sum())


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.3, 1.0), (0.0, 1.7), (2.0, 1.0)])
def test_the_index_is_that_of_the_textbook(mean: float, deviation: float) -> None:
    reference, current = RANDOM.normal(size=4_001), RANDOM.normal(mean, deviation, 2_000)
    # An edge of ours is a value of the reference: its bin of one value moves the index by less than its floor's share.
    assert population_stability_index(reference, current) == pytest.approx(by_pandas(reference, current), abs=0.02)


def test_the_same_population_is_stable_and_another_one_is_not() -> None:
    reference = RANDOM.normal(size=5_000)
    assert population_stability_index(reference, RANDOM.normal(size=5_000)) < 0.05
    assert population_stability_index(reference, RANDOM.normal(1.0, 1.0, 5_000)) > MOVED


def test_values_that_go_missing_move_the_population() -> None:
    reference = RANDOM.normal(size=2_000)
    current = np.where(RANDOM.random(2_000) < 0.4, np.nan, RANDOM.normal(size=2_000))
    assert population_stability_index(reference, current) > MOVED


def test_a_constant_that_changes_is_seen_and_one_that_stays_is_not() -> None:
    constant = np.ones(500)
    assert population_stability_index(constant, constant) == 0.0
    assert population_stability_index(constant, constant + 1e-9) > 1.0


@pytest.mark.parametrize(("reference", "current"), [([], [1.0]), ([1.0], [])])
def test_nothing_has_no_index(reference: list[float], current: list[float]) -> None:
    assert np.isnan(population_stability_index(reference, current))


def test_all_missing_on_both_sides_is_no_drift() -> None:
    assert population_stability_index([np.nan] * 9, [np.inf] * 5) == 0.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_the_index_is_never_negative_and_zero_against_itself(reference: list[float], current: list[float]) -> None:
    assert population_stability_index(reference, current) >= 0.0
    assert population_stability_index(reference, reference) == 0.0


def test_the_shift_is_welchs_t() -> None:
    before, now = RANDOM.normal(0.05, 0.1, 300), RANDOM.normal(0.0, 0.2, 40)
    assert mean_shift(before, now) == pytest.approx(stats.ttest_ind(now, before, equal_var=False).statistic)


@pytest.mark.parametrize("now", [[], [0.1], [np.nan, 0.2]])
def test_a_shift_needs_two_values_on_each_side(now: list[float]) -> None:
    assert np.isnan(mean_shift([0.1, 0.2, 0.3], now))
