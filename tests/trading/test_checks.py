"""The checks of a slot give the verdicts of the checks of whole frames."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.domain.experiment import PredictionGuard
from tidemill.models.ensemble import ranks
from tidemill.quality.validity import PastRange, disagreement, distances, feature_bounds, missing_share, outside
from tidemill.trading.checks import PredictionChecks

ENGINES, FEATURES = ("one", "two", "three"), tuple(f"f{at}" for at in range(10))
TIME = datetime(2024, 1, 1, tzinfo=UTC)
SPEC = PredictionGuard(missing=0.3, distance=1.5, range=0.5, history=50, disagreement=0.6)
OFF = PredictionGuard(missing=None, distance=None, range=None, disagreement=None)


def above(values: pl.Series, limit: float | None) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.zeros(len(numbers), dtype=np.bool_) if limit is None else numbers > limit


@given(
    seed=st.integers(0, 100_000),
    symbols=st.integers(1, 12),
    spec=st.sampled_from(
        [SPEC, OFF, PredictionGuard(), PredictionGuard(missing=0.1, distance=0.9, range=None, disagreement=0.5)]
    ),
)
@settings(max_examples=200, deadline=None)
def test_a_slot_is_judged_as_frames_are(seed: int, symbols: int, spec: PredictionGuard) -> None:
    random = np.random.default_rng(seed)
    odd = (np.nan, np.inf, -np.inf, 0.0, 1e12)
    training = random.normal(size=(400, len(FEATURES))) * 3.0
    training[:, 3] = 7.0  # never varied
    training[:, 4] = np.maximum(training[:, 4], 0.0)  # mostly at its bound
    bounds = feature_bounds(pl.DataFrame(training, schema=list(FEATURES)), FEATURES)
    values = random.normal(size=(symbols, len(FEATURES))) * 3.0
    values = np.where(random.random(values.shape) < 0.25, random.choice(odd, values.shape), values)
    predictions = random.normal(size=(symbols, len(ENGINES))).round(1)
    predictions = np.where(random.random(predictions.shape) < 0.2, np.nan, predictions)
    past = {"one": PastRange(-1.0, 1.0, 80), "two": PastRange(-1.0, 1.0, 10), "three": None}

    found = PredictionChecks(spec, FEATURES, bounds, ENGINES, past).step(values, predictions, np.ones(symbols, np.bool_))

    names = [f"S{at:02d}" for at in range(symbols)]
    frame = pl.DataFrame({"symbol": names, **{name: values[:, at] for at, name in enumerate(FEATURES)}})
    far = above(missing_share(frame, FEATURES), spec.missing) | above(distances(frame, bounds), spec.distance)
    strange = np.zeros((symbols, len(ENGINES)), dtype=np.bool_)
    for at, name in enumerate(ENGINES):
        said = past[name]
        if said is not None and said.size >= spec.history:
            strange[:, at] = above(outside(pl.Series(predictions[:, at]), said), spec.range)
        assert np.array_equal(found[:, at], far | strange[:, at])
    told = [
        pl.DataFrame({"symbol": names, "prediction": predictions[:, at]}).with_columns(
            pl.lit(TIME).alias("open_time"), pl.lit(name).alias("engine")
        )
        for at, name in enumerate(ENGINES)
    ]
    ranked = ranks(pl.concat(told), ENGINES)
    apart = above(disagreement(ranked, ENGINES), spec.disagreement)
    assert np.array_equal(found[:, -1], far | apart | (strange.mean(axis=1) > 0.5))
