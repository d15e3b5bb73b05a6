"""The confidence of a signal: what scikit-learn's isotonic regression says, and nothing where too little is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from tidemill.trading.confidence import LEAST, confidence, fit_confidence


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), digits=st.integers(0, 6), skill=st.floats(-1.0, 2.0))
def test_it_is_the_isotonic_regression_of_the_sign_of_the_label(seed: int, digits: int, skill: float) -> None:
    random = np.random.default_rng(seed)
    predictions = random.normal(size=900).round(digits)
    labels = skill * predictions + random.normal(size=900)
    labels[:50], predictions[50:80] = np.nan, np.nan
    known = np.isfinite(predictions) & np.isfinite(labels)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(predictions[known], labels[known] > 0.0)
    asked = np.concatenate([random.normal(size=200) * 3.0, predictions[known]])
    expected = oracle.predict(asked)
    knots = fit_confidence(predictions, labels)
    assert confidence(knots, asked, np.ones(len(asked))) == pytest.approx(expected, abs=1e-12)
    assert confidence(knots, asked, -np.ones(len(asked))) == pytest.approx(1.0 - expected, abs=1e-12)


def test_nothing_is_claimed_of_what_is_flat_unpredicted_or_hardly_known() -> None:
    random = np.random.default_rng(1)
    predictions, labels = random.normal(size=LEAST), random.normal(size=LEAST)
    knots = fit_confidence(predictions, labels)
    assert confidence(knots, np.array([9.0, np.nan]), np.array([0.0, 1.0])).tolist() == [0.5, 0.5]
    assert fit_confidence(predictions[1:], labels[1:]) == ()
    assert confidence((), predictions, np.ones(LEAST)).tolist() == [0.5] * LEAST
