"""The two engines whose answer can be computed by hand."""

import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.panels import FEATURES, before, day, information_coefficient, panel
from tidemill.domain.errors import InputError, IntegrityError
from tidemill.models.artifact import Artifact
from tidemill.models.base import Standardizer, training_set
from tidemill.models.momentum import ENGINE as MOMENTUM
from tidemill.models.registry import Engines, engines
from tidemill.models.ridge import ENGINE as RIDGE


def test_momentum_prefers_what_rose_over_60_bars_and_not_over_the_last_five() -> None:
    rows = panel(4, 60)
    artifact = MOMENTUM.fit(rows, features=FEATURES, params={}, seed=7)
    # ROCn is the price n bars ago over the price now.
    cases = pl.DataFrame(
        {
            "symbol": ["fell", "flat", "late", "rose"],
            "open_time": pl.Series([day(0)] * 4, dtype=pl.Datetime("us", "UTC")),
            "ROC60": [1.2, 1.0, 0.8, 0.8],
            "ROC5": [1.0, 1.0, 0.8, 1.0],
            "STD20": [1.0] * 4,
        }
    )
    made = dict(zip(cases["symbol"], MOMENTUM.predict(artifact, cases)["prediction"], strict=True))
    assert made["fell"] < made["flat"] == made["late"] < made["rose"]
    wilder = cases.with_columns(pl.lit(2.0).alias("STD20"))
    assert MOMENTUM.predict(artifact, wilder)["prediction"][3] < made["rose"]


def test_momentum_works_with_the_classic_set_alone() -> None:
    rows = panel(4, 60, planted="x0", skill=0.5).rename({"x0": "roc_10", "x1": "natr_14"})
    rows = rows.with_columns(pl.col("natr_14").abs() + 0.5)
    artifact = MOMENTUM.fit(rows, features=("roc_10", "natr_14"), params={}, seed=7)
    assert information_coefficient(MOMENTUM.predict(artifact, rows), rows) > 0.2


def test_momentum_says_which_features_it_needs() -> None:
    with pytest.raises(InputError, match=r"ROC60, ROC5, STD20 or roc_10, natr_14"):
        MOMENTUM.fit(panel(4, 60), features=("x0", "x1"), params={}, seed=7)
    assert MOMENTUM.info.needs[0] == ("ROC60", "ROC5", "STD20")


def test_momentum_has_no_prediction_where_its_ratio_is_undefined() -> None:
    rows = panel(4, 60)
    artifact = MOMENTUM.fit(rows, features=FEATURES, params={}, seed=7)
    for column, value in (("STD20", 0.0), ("ROC60", 0.0), ("ROC5", -1.0), ("ROC60", None)):
        odd = rows.with_columns(pl.lit(value, pl.Float64).alias(column))
        assert MOMENTUM.predict(artifact, odd)["prediction"].is_null().all()


def test_momentum_whose_columns_are_never_known_together_is_refused() -> None:
    rows = panel(4, 60).with_columns(pl.lit(0.0).alias("STD20"))
    with pytest.raises(InputError, match="never known together"):
        MOMENTUM.fit(rows, features=FEATURES, params={}, seed=7)


def test_ridge_agrees_with_least_squares_on_standardised_rows_augmented_by_the_penalty() -> None:
    rows, penalty = panel(6, 120, skill=0.6), 0.3
    artifact = RIDGE.fit(rows, features=FEATURES, params={"penalty": penalty}, seed=7)
    label = rows["label"].to_numpy()
    clipped = np.clip(label, *np.quantile(label, [0.01, 0.99]))
    by_time = clipped.reshape(6, 120)
    target = (by_time - by_time.mean(axis=0)).flatten()
    columns = []
    for name in FEATURES:
        values = rows[name].to_numpy()
        values = np.clip(values, *np.quantile(values, [0.01, 0.99]))
        columns.append(np.clip((values - values.mean()) / values.std(), -5.0, 5.0))
    x = np.stack(columns, axis=1)
    augmented = np.vstack([x, math.sqrt(penalty * len(x)) * np.eye(len(FEATURES))])
    weights = np.linalg.lstsq(augmented, np.append(target - target.mean(), np.zeros(len(FEATURES))), rcond=None)[0]
    assert artifact.tensors["weights"] == pytest.approx(weights, rel=1e-8, abs=1e-12)
    assert RIDGE.predict(artifact, rows)["prediction"].to_numpy() == pytest.approx(
        x @ weights + target.mean(), rel=1e-7, abs=1e-12
    )


def test_ridge_has_the_same_hash_on_one_thread_and_on_two() -> None:
    code = (
        "from tests.models.panels import FEATURES, panel; from tidemill.models.ridge import ENGINE;"
        "print(ENGINE.fit(panel(30, 200), features=FEATURES, params={}, seed=7).hash)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"OPENBLAS_NUM_THREADS": count}, capture_output=True, check=True
        )
        for count in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_ridge_on_hundreds_of_features_has_the_same_hash_on_one_thread_and_on_two() -> None:
    code = """
        import numpy as np
        import polars as pl
        from tests.models.panels import panel
        from tidemill.models.ridge import ENGINE
        chance, names = np.random.default_rng(1), [f"w{at}" for at in range(500)]
        rows = panel(20, 100)
        rows = rows.with_columns(pl.Series(name, chance.normal(size=rows.height)) for name in names)
        print(ENGINE.fit(rows, features=tuple(names), params={}, seed=7).hash)
    """
    runs = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | {"OPENBLAS_NUM_THREADS": count},
            capture_output=True,
            check=True,
        )
        for count in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_a_small_universe_keeps_the_mean_of_its_labels_and_a_large_one_does_not() -> None:
    for symbols, relative in ((1, False), (2, False), (3, True), (5, True)):
        data = training_set(panel(symbols, 80).with_columns(pl.col("label") + 1.0), ("x0",))
        assert data.relative is relative
        assert (abs(float(np.mean(data.target))) < 0.1) is relative


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")) | st.just(float("inf")), min_size=40, max_size=80))
def test_standardised_values_are_always_finite_and_within_five(drawn: list[float]) -> None:
    rows = panel(1, len(drawn)).with_columns(pl.Series("x1", drawn))
    scaling = Standardizer.fit(training_set(rows, ("x0", "x1", "x2")))
    made = scaling.matrix(rows, ("x0", "x1", "x2"))
    assert np.isfinite(made).all()
    assert np.abs(made).max() <= 5.0


def test_scaling_is_fitted_on_training_rows_alone() -> None:
    rows = panel(4, 100)
    wild = rows.with_columns(
        pl.when(pl.col("open_time") >= day(70)).then(pl.col("x0") * 1e6).otherwise(pl.col("x0")).alias("x0")
    )
    first = RIDGE.fit(before(rows, 70), features=FEATURES, params={}, seed=7)
    assert RIDGE.fit(before(wild, 70), features=FEATURES, params={}, seed=7).hash == first.hash


def test_one_absurd_label_does_not_decide_a_fit() -> None:
    rows = panel(10, 100, skill=0.3)
    spoilt = rows.with_columns(pl.when(pl.int_range(pl.len()) == 17).then(1e9).otherwise(pl.col("label")).alias("label"))
    plain, robust = (RIDGE.fit(frame, features=FEATURES, params={}, seed=7).tensors["weights"] for frame in (rows, spoilt))
    assert np.abs(plain - robust).max() < 0.1 * np.abs(plain).max()


def test_ridge_weights_of_another_shape_are_refused() -> None:
    artifact = RIDGE.fit(panel(4, 60), features=FEATURES, params={}, seed=7)
    odd = Artifact(artifact.manifest, {**artifact.tensors, "weights": np.zeros(3)})
    with pytest.raises(IntegrityError, match="shapes"):
        RIDGE.predict(odd, panel(4, 60))


def test_an_engine_of_ones_own_stands_beside_the_others() -> None:
    from tidemill.models.base import EngineInfo
    from tidemill.models.ridge import Ridge

    class Own(Ridge):
        info = EngineInfo(name="own", kind="linear", about="a test's")

    known = Engines({"own": Own()})
    assert known.find("own").info.about == "a test's"
    assert known.all()[-1].info.name == "ensemble"
    assert {one.info.name for one in known.all()} - {one.info.name for one in engines()} == {"own"}
