"""Strategies of one's own functions."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tidemill.calendars import ALWAYS
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.market import Instrument
from tidemill.strategies.custom import custom_strategy
from tidemill.strategies.registry import register, source_of, strategy, target_weights, unregister

START = datetime(2024, 1, 1, tzinfo=UTC)
Weigh = Callable[..., Any]


@pytest.fixture
def predictions() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": ["A", "A", "B", "B"],
            "open_time": [START, START + timedelta(days=1)] * 2,
            "prediction": [1.0, -1.0, 0.5, 2.0],
        },
        schema_overrides={"open_time": pl.Datetime("us", "UTC")},
    )


@pytest.fixture
def own() -> Iterator[Callable[..., None]]:
    def put(weigh: Weigh, **options: Any) -> None:
        register(custom_strategy("own", weigh, **options), "source")

    yield put
    unregister("own")


def positive(predictions: pl.DataFrame, share: float = 0.5) -> pl.DataFrame:
    weight = pl.when(pl.col("prediction") > 0).then(share).otherwise(0.0)
    return predictions.select("symbol", "open_time", weight=weight)


def test_a_function_of_predictions_is_a_strategy_with_parameters(own: Callable[..., None], predictions: pl.DataFrame) -> None:
    own(positive)
    assert target_weights("own", predictions, {}, {})["weight"].to_list() == [0.5, 0.5, 0.0, 0.5]
    assert target_weights("own", predictions, {"share": 0.25}, {})["weight"].max() == 0.25
    assert source_of("own") == "source"
    with pytest.raises(UnknownNameError, match="parameter of own"):
        target_weights("own", predictions, {"shares": 1}, {})
    with pytest.raises(InputError, match="A parameter of own is wrong"):
        target_weights("own", predictions, {"share": "all"}, {})


def test_a_function_that_asks_for_instruments_gets_them(own: Callable[..., None], predictions: pl.DataFrame) -> None:
    def shortable(frame: pl.DataFrame, instruments: dict[str, Instrument]) -> pl.DataFrame:
        short = [name for name, one in instruments.items() if one.can_short]
        return frame.select("symbol", "open_time", weight=pl.when(pl.col("symbol").is_in(short)).then(-0.5).otherwise(0.5))

    own(shortable)
    instruments = {name: Instrument(venue="x", symbol=name, calendar=ALWAYS, can_short=name == "B") for name in ("A", "B")}
    assert target_weights("own", predictions, {}, instruments).sort("symbol")["weight"].to_list() == [0.5, 0.5, -0.5, -0.5]


def test_a_strategy_over_bars_answers_a_row_for_each_bar(own: Callable[..., None], predictions: pl.DataFrame) -> None:
    own(lambda bars: bars.head(1).select("symbol", "open_time", weight=1.0), needs="bars")
    bars = predictions.rename({"prediction": "close"})
    assert target_weights("own", bars, {}, {})["weight"].to_list() == [1.0, None, None, None]


@pytest.mark.parametrize(
    ("weigh", "reason"),
    [
        (lambda frame: 1, "must answer a polars frame"),
        (lambda frame: frame, "must answer a polars frame of symbol, open_time and weight"),
        (lambda frame: frame.with_columns(weight=pl.lit("much")), "answers times or weights that are none"),
        (lambda frame: frame.with_columns(weight=pl.lit(float("inf"))), "an infinite weight"),
        (lambda frame: pl.concat([frame, frame]).with_columns(weight=0.1), "two weights for one bar"),
        (
            lambda frame: frame.with_columns(pl.col("open_time") + timedelta(hours=1), weight=pl.lit(0.1)),
            "a bar that it was not given",
        ),
        (lambda frame: frame["absent"], "The strategy own failed: ColumnNotFoundError"),
    ],
)
def test_an_answer_that_is_no_weights_is_refused(
    own: Callable[..., None], predictions: pl.DataFrame, weigh: Weigh, reason: str
) -> None:
    own(weigh)
    with pytest.raises(InputError, match=reason):
        target_weights("own", predictions, {}, {})


def test_what_is_no_number_asks_for_nothing(own: Callable[..., None], predictions: pl.DataFrame) -> None:
    own(lambda frame: frame.select("symbol", "open_time", weight=pl.lit(float("nan"))))
    assert target_weights("own", predictions, {}, {})["weight"].to_list() == [None] * 4


def test_a_name_that_is_taken_is_refused_and_shipped_ones_cannot_be_forgotten() -> None:
    with pytest.raises(InputError, match="already a strategy named 'quantile'"):
        register(custom_strategy("quantile", positive))
    unregister("quantile")
    assert strategy("quantile").needs == "predictions"
