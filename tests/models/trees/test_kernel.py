"""Our scoring of LightGBM's trees against LightGBM's own, to the bit."""

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from tests.models.panels import FEATURES, panel
from tidemill.models.artifact import Artifact
from tidemill.models.registry import engine
from tidemill.models.trees.stream import scored

WIDTH = len(FEATURES)


def trained(seed: int, unknown: float, **params: int) -> Artifact:
    """Trees that learnt from rows of which a share of the cells is unknown."""
    rng, rows = np.random.default_rng(seed), panel(6, 120, skill=0.5, seed=seed)
    holes = [
        pl.when(pl.Series(rng.random(len(rows)) < unknown)).then(float("nan")).otherwise(pl.col(name).round(1)).alias(name)
        for name in FEATURES
    ]
    return engine("lightgbm").fit(rows.with_columns(holes), features=FEATURES, params=params, seed=seed)


def odd_rows(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Numbers, among them thresholds (training data has one decimal), zeros of either sign, tiny, huge and unknown ones."""
    rows = np.round(rng.normal(size=(count, WIDTH)), 1).astype(np.float32)
    odd = np.array([0.0, -0.0, 1e-35, -1e-35, 1e-36, 1e-45, 1e38, -1e38, np.nan], dtype=np.float32)
    chosen = rng.random((count, WIDTH)) < 0.3
    rows[chosen] = rng.choice(odd, int(chosen.sum()))
    return rows


@pytest.mark.parametrize("unknown", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("params", [{"trees": 40, "num_leaves": 15}, {"trees": 3, "num_leaves": 200, "min_data_in_leaf": 2}])
def test_trees_score_as_lightgbm_does_to_the_bit(unknown: float, params: dict[str, int]) -> None:
    import lightgbm

    for seed in (1, 2):
        model, rng = trained(seed, unknown, **params), np.random.default_rng(seed)
        library = lightgbm.Booster(model_str=model.text)
        for count in (1, 2, 15, 16, 17, 100):
            rows = odd_rows(rng, count)
            assert scored(model, rows).tobytes() == library.predict(rows, num_threads=1).tobytes()


def test_trees_that_found_nothing_to_split_give_their_mean() -> None:
    import lightgbm

    rows = panel(5, 80).with_columns(pl.lit(0.01).alias("label"))
    model = engine("lightgbm").fit(rows, features=FEATURES, params={"trees": 3}, seed=7)
    values = odd_rows(np.random.default_rng(3), 20)
    assert scored(model, values).tobytes() == lightgbm.Booster(model_str=model.text).predict(values).tobytes()


def test_a_row_scores_the_same_alone_and_in_any_company() -> None:
    model, rows = trained(4, 0.1, trees=30), odd_rows(np.random.default_rng(4), 50)
    together = scored(model, rows)
    for size in (1, 3, 16, 20):
        parts = [scored(model, np.ascontiguousarray(rows[first : first + size])) for first in range(0, 50, size)]
        assert np.concatenate(parts).tobytes() == together.tobytes()


def test_no_rows_score_nothing() -> None:
    assert scored(trained(5, 0.0, trees=2), np.empty((0, WIDTH), dtype=np.float32)).shape == (0,)
