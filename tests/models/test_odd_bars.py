"""Every engine and the shipped label on odd bars, from the bars on: constant, NaN, inf, gapped, alone, dying, one class."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.study.panels import START, daily_bars
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.features.api import compute, feature_set
from tidemill.models.custom import CustomEngine
from tidemill.models.ensemble import combine
from tidemill.models.registry import engine
from tidemill.validation.labels import forward_return

FEATURES = feature_set("ROC5", "ROC60", "STD20", "rsi_14", "natr_14")
STEPS = {"minimum_steps": 2, "maximum_steps": 3}
QUICK: dict[str, dict[str, Any]] = {"lightgbm": {"trees": 10}, "transformer": STEPS, "gru": STEPS}
ENGINES = ("momentum", "mean_reversion", "ridge", "lightgbm", "transformer", "gru", "own")
PRICES = ("open", "high", "low", "close")
SPLIT = START + timedelta(days=200)
Change = Callable[[pl.DataFrame], pl.DataFrame]
LAST = {"AAA": 260, "BBB": 210, "CCC": 150, "DDD": 90}
AT = pl.int_range(pl.len()).over("symbol")


def base() -> pl.DataFrame:
    made = daily_bars(260, ("AAA", "BBB", "CCC", "DDD"))
    return made.select("symbol", pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time"),
                       *PRICES, "volume")  # fmt: skip


def one_of_them(value: float) -> Change:
    own = pl.col("symbol") == "BBB"
    return lambda bars: bars.with_columns(pl.when(own).then(value).otherwise(pl.col(name)).alias(name) for name in PRICES)


def holes(value: float | None) -> Change:
    at = (AT % 40 == 11) | ((pl.col("symbol") == "CCC") & (AT > 230))
    columns = (*PRICES, "volume")
    return lambda bars: bars.with_columns(pl.when(at).then(value).otherwise(pl.col(name)).alias(name) for name in columns)


ODD: dict[str, Change] = {
    "one constant": one_of_them(50.0),
    "one all NaN": one_of_them(float("nan")),
    "NaN": holes(float("nan")),
    "null": holes(None),
    "inf": holes(float("inf")),
    "zero": holes(0.0),
    "gapped": lambda bars: bars.filter((AT % 3 != 1) | (pl.col("symbol") == "AAA")),
    "one symbol": lambda bars: bars.filter(pl.col("symbol") == "AAA"),
    "dying": lambda bars: bars.filter(pl.col("symbol").replace_strict(LAST) > AT),
}


def ready(change: Change) -> pl.DataFrame:
    bars = change(base())
    made = forward_return(bars, 3, Interval.parse("1d"))
    assert made["label"].drop_nulls().is_finite().all()
    assert made.height == bars.height
    return compute(bars, FEATURES)[0].join(made, on=("symbol", "open_time"), how="left", maintain_order="left")


def own_fit(training: pl.DataFrame, *, features: tuple[str, ...]) -> dict[str, float]:
    return {"mean": float(training["label"].mean() or 0.0)}  # type: ignore[arg-type]  # a float


def own_predict(arrays: dict[str, np.ndarray], frame: pl.DataFrame) -> pl.Series:
    return frame["ROC5"] * 0.0 + float(arrays["mean"][0])


def scored(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    chosen = CustomEngine("own", own_fit, own_predict, source="x") if name == "own" else engine(name)
    training = frame.filter(pl.col("label_end_at") <= SPLIT)
    model = chosen.fit(training, features=FEATURES.names, params=QUICK.get(name, {}), seed=7)
    return chosen.predict(model, frame, start=SPLIT)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_answers_every_row_with_a_number_or_with_nothing(name: str, odd: str) -> None:
    frame = ready(ODD[odd])
    made = scored(name, frame)
    rows = frame.filter(pl.col("open_time") >= SPLIT).select("symbol", "open_time")
    assert made.select("symbol", "open_time").equals(rows)
    known = made["prediction"].drop_nulls()
    assert len(known) > 0
    assert known.is_finite().all()


@pytest.mark.parametrize("name", ENGINES)
def test_labels_of_one_class_alone_give_predictions_of_it_or_one_sentence(name: str) -> None:
    rows = ready(lambda bars: bars).with_columns(pl.when(pl.col("label").is_not_null()).then(1.0).alias("label"))
    known = scored(name, rows)["prediction"].drop_nulls()
    assert known.is_finite().all()
    assert np.ptp(known.to_numpy()) < 0.1


@pytest.mark.parametrize("name", ENGINES)
def test_prices_that_never_move_are_refused_or_predicted_to_stay(name: str) -> None:
    frame = ready(lambda bars: bars.with_columns(*(pl.lit(50.0).alias(column) for column in PRICES), volume=pl.lit(9.0)))
    assert set(frame["label"].drop_nulls()) == {0.0}
    try:
        known = scored(name, frame)["prediction"].drop_nulls()
    except InputError:
        return
    assert not len(known) or known.is_finite().all()


@pytest.mark.parametrize("odd", ODD)
def test_the_ensemble_of_odd_predictions_is_a_number_or_nothing(odd: str) -> None:
    frame = ready(ODD[odd])
    names = ("momentum", "mean_reversion", "ridge")
    made = pl.concat([scored(name, frame).with_columns(pl.lit(name).alias("engine")) for name in names])
    known = combine(made, names)["prediction"].drop_nulls()
    assert len(known) > 0
    assert known.is_finite().all()
