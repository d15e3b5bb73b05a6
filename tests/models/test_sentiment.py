"""The sentiment engine: what the news said, by hand; silent without news."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.models.panels import FEATURES, before, day, information_coefficient, panel
from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, load
from tidemill.models.sentiment import COLUMNS, ENGINE, is_silent

KNOWN = (*FEATURES, "sentiment_mean", "sentiment_count", "sentiment_surprise")
RENAMED = {"x0": "sentiment_mean", "x1": "sentiment_surprise", "x2": "sentiment_count"}


def informed(symbols: int = 6, bars: int = 80, skill: float = 0.0, planted: str = "x0") -> pl.DataFrame:
    """A panel whose news is known throughout."""
    made = panel(symbols, bars, skill=skill, planted=planted).rename(RENAMED)
    return made.with_columns(pl.lit(0.0).alias("x0"))


def fitted(rows: pl.DataFrame, params: dict[str, Any] | None = None, features: tuple[str, ...] = KNOWN[3:]) -> Artifact:
    present = tuple(name for name in features if name in rows.columns)
    return ENGINE.fit(rows, features=present, params=params or {}, seed=7)


def test_good_news_and_better_news_than_expected_raise_the_prediction() -> None:
    cases = pl.DataFrame(
        {
            "symbol": ["bad", "good", "none", "surprising"],
            "open_time": pl.Series([day(0)] * 4, dtype=pl.Datetime("us", "UTC")),
            "sentiment_mean": [-0.5, 0.5, 0.0, 0.5],
            "sentiment_surprise": [0.0, 0.0, 0.0, 0.7],
        }
    )
    made = dict(zip(cases["symbol"], ENGINE.predict(fitted(informed()), cases)["prediction"], strict=True))
    assert made["bad"] < made["none"] < made["good"] < made["surprising"]
    still = ENGINE.predict(fitted(informed(), {"surprise": 0.0}), cases)["prediction"].to_list()
    assert still[1] == still[3]


def test_the_expected_label_is_the_standardised_score_times_what_the_rule_claims() -> None:
    rows = informed()
    score = rows["sentiment_mean"].to_numpy() + 2.0 * rows["sentiment_surprise"].to_numpy()
    label = rows["label"].to_numpy()
    clipped = np.clip(label, *np.quantile(label, [0.01, 0.99]))
    target = (clipped.reshape(6, 80) - clipped.reshape(6, 80).mean(axis=0)).std()
    expected = 0.1 * target * np.clip((score - score.mean()) / score.std(), -3.0, 3.0)
    made = ENGINE.predict(fitted(rows, {"surprise": 2.0, "skill": 0.1}), rows)["prediction"].to_numpy()
    assert made == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_planted_news_is_found_out_of_sample() -> None:
    rows = informed(30, 200, skill=0.3)
    found = information_coefficient(ENGINE.predict(fitted(before(rows, 120), {"surprise": 0.0}), rows, start=day(125)), rows)
    assert 0.2 < found < 0.4


def test_without_news_it_is_silent_and_a_silent_model_can_be_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = panel(4, 60)
    artifact = ENGINE.fit(rows, features=FEATURES, params={}, seed=7)
    assert is_silent(artifact)
    folder = tmp_path_factory.mktemp("models") / "m"
    artifact.save(folder)
    scored = ENGINE.predict(load(folder), rows, start=day(50))
    assert scored.columns == ["symbol", "open_time", "prediction"]
    assert (scored.height, scored["prediction"].null_count(), scored.schema["prediction"]) == (40, 40, pl.Float64)
    assert ENGINE.fit(rows, features=FEATURES, params={}, seed=7).hash == artifact.hash


def test_a_window_that_knew_too_little_news_makes_it_silent_too() -> None:
    rows = informed()
    late = [pl.when(pl.col("open_time") >= day(76)).then(pl.col(name)).otherwise(None).alias(name) for name in COLUMNS]
    assert is_silent(fitted(rows.with_columns(late)))
    assert not is_silent(fitted(rows))


def test_a_bar_whose_news_is_unknown_has_no_prediction() -> None:
    rows = informed()
    gone = [pl.when(pl.col("symbol") == "S001").then(float("nan")).otherwise(pl.col(name)).alias(name) for name in COLUMNS]
    scored = ENGINE.predict(fitted(rows), rows.with_columns(gone))
    assert scored.filter(pl.col("symbol") == "S001")["prediction"].is_null().all()
    assert scored.filter(pl.col("symbol") != "S001")["prediction"].is_finite().all()


def test_the_batch_changes_no_bit() -> None:
    rows = informed()
    artifact = fitted(rows)
    whole = ENGINE.predict(artifact, rows)
    alone = [ENGINE.predict(artifact, rows.filter(pl.col("symbol") == name)) for name in whole["symbol"].unique().sort()]
    assert pl.concat(alone).equals(whole)


@pytest.mark.parametrize("params", [{"surprise": -1.0}, {"skill": 0.0}, {"half_life": 3}])
def test_parameters_out_of_range_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="sentiment"):
        fitted(informed(), params)


def test_a_frame_without_a_label_is_refused() -> None:
    with pytest.raises(InputError, match="label"):
        fitted(informed().drop("label"))
