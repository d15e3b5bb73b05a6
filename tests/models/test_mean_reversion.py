"""The reversal rule, computed by hand."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.panels import FEATURES, day, information_coefficient, panel
from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact
from tidemill.models.mean_reversion import ENGINE


def fitted(params: dict[str, Any] | None = None, rows: pl.DataFrame | None = None) -> Artifact:
    return ENGINE.fit(panel(4, 60) if rows is None else rows, features=FEATURES, params=params or {}, seed=7)


def cases(roc: list[float], deviation: list[float]) -> pl.DataFrame:
    """One symbol a case; ROC5 is the price five bars ago over the price now."""
    return pl.DataFrame(
        {
            "symbol": [f"S{number}" for number in range(len(roc))],
            "open_time": pl.Series([day(0)] * len(roc), dtype=pl.Datetime("us", "UTC")),
            "ROC5": roc,
            "STD20": deviation,
        }
    )


def predicted(artifact: Artifact, roc: list[float], deviation: list[float]) -> list[float]:
    return ENGINE.predict(artifact, cases(roc, deviation))["prediction"].to_list()


def test_what_fell_is_expected_to_rise_and_more_so_when_the_fall_is_large_for_the_symbol() -> None:
    rose, flat, fell, fell_wildly = predicted(fitted(), [0.95, 1.0, 1.05, 1.05], [1.0, 1.0, 1.0, 2.0])
    assert rose < flat < fell_wildly < fell


def test_the_expected_label_is_the_standardised_score_times_what_the_rule_claims() -> None:
    rows = panel(4, 60)
    score = np.log(rows["ROC5"].to_numpy()) / rows["STD20"].to_numpy()
    label = rows["label"].to_numpy()
    clipped = np.clip(label, *np.quantile(label, [0.01, 0.99]))
    target = (clipped.reshape(4, 60) - clipped.reshape(4, 60).mean(axis=0)).std()
    expected = 0.05 * target * np.clip((score - score.mean()) / score.std(), -3.0, 3.0)
    made = ENGINE.predict(fitted({"skill": 0.05}, rows), rows)["prediction"].to_numpy()
    assert made == pytest.approx(expected, rel=1e-9, abs=1e-15)


@given(st.floats(0.0, 2.9), st.floats(-4.0, 4.0))
def test_a_move_within_the_threshold_says_nothing_and_one_beyond_says_what_is_beyond(threshold: float, z: float) -> None:
    artifact = fitted({"threshold": threshold})
    mean, deviation, scale = (float(artifact.tensors[name][0]) for name in ("mean", "deviation", "scale"))
    made = predicted(artifact, [math.exp(mean + z * deviation)], [1.0])[0]
    beyond = max(min(abs(z), 3.0) - threshold, 0.0)
    assert made == pytest.approx(math.copysign(beyond, z) * scale, rel=1e-6, abs=1e-9 * scale)


def test_a_planted_reversal_is_found_and_planted_momentum_shows_with_the_opposite_sign() -> None:
    for sign in (1.0, -1.0):
        rows = panel(20, 200, skill=0.4, planted="ROC5").with_columns(pl.col("label") * sign)
        found = information_coefficient(ENGINE.predict(fitted(rows=rows), rows), rows)
        assert 0.3 < sign * found < 0.45


def test_the_classic_set_alone_will_do_and_other_bars_are_read_from_their_own_columns() -> None:
    rows = panel(4, 60, planted="x0", skill=-0.5).rename({"x0": "roc_10", "x1": "natr_14", "x2": "ROC3", "x3": "STD7"})
    rows = rows.with_columns(pl.col("natr_14", "STD7").abs() + 0.5, (0.1 * pl.col("ROC3")).exp())
    classic = ENGINE.fit(rows, features=("roc_10", "natr_14"), params={}, seed=7)
    assert information_coefficient(ENGINE.predict(classic, rows), rows) > 0.2
    features = ("ROC5", "STD20", "ROC3", "STD7", "roc_10", "natr_14")
    short = ENGINE.fit(rows, features=features, params={"bars": 3, "volatility_bars": 7}, seed=7)
    assert short.inputs.features == ("ROC3", "STD7")


def test_columns_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match=r"ROC9, STD20 or roc_9, natr_14"):
        fitted({"bars": 9})
    assert ENGINE.info.needs == (("ROC5", "STD20"), ("roc_10", "natr_14"))


@pytest.mark.parametrize("params", [{"threshold": 3.0}, {"threshold": -1.0}, {"bars": 0}, {"skill": 0.0}, {"window": 5}])
def test_parameters_out_of_range_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="mean_reversion"):
        fitted(params)


def test_there_is_no_prediction_where_the_ratio_is_undefined() -> None:
    made = predicted(fitted(), [1.0, 0.0, -1.0, math.nan, 1.02], [0.0, 1.0, 1.0, 1.0, math.inf])
    assert made == [None] * 5
