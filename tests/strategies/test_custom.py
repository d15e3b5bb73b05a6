"""Strategies of one's own functions."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tests.strategies.weights import target_weights
from tidemill.calendars import ALWAYS
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.market import Instrument
from tidemill.strategies.custom import custom_strategy
from tidemill.strategies.registry import Strategies, require_free

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


def own(weigh: Weigh, **options: Any) -> Strategies:
    """What is known by name, with a strategy `own` of this function."""
    return Strategies({"own": custom_strategy("own", weigh, source="source", **options)})


def positive(predictions: pl.DataFrame, share: float = 0.5) -> pl.DataFrame:
    weight = pl.when(pl.col("prediction") > 0).then(share).otherwise(0.0)
    return predictions.select("symbol", "open_time", weight=weight)


def test_a_function_of_predictions_is_a_strategy_with_parameters(predictions: pl.DataFrame) -> None:
    known = own(positive)
    assert target_weights("own", predictions, {}, {}, known=known)["weight"].to_list() == [0.5, 0.5, 0.0, 0.5]
    assert target_weights("own", predictions, {"share": 0.25}, {}, known=known)["weight"].max() == 0.25
    assert (known.source("own"), known.source("quantile")) == ("source", "")
    with pytest.raises(UnknownNameError, match="parameter of own"):
        target_weights("own", predictions, {"shares": 1}, {}, known=known)
    with pytest.raises(InputError, match="A parameter of own is wrong"):
        target_weights("own", predictions, {"share": "all"}, {}, known=known)


def test_a_function_that_asks_for_instruments_gets_them(predictions: pl.DataFrame) -> None:
    def shortable(frame: pl.DataFrame, instruments: dict[str, Instrument]) -> pl.DataFrame:
        short = [name for name, one in instruments.items() if one.can_short]
        return frame.select("symbol", "open_time", weight=pl.when(pl.col("symbol").is_in(short)).then(-0.5).otherwise(0.5))

    known = own(shortable)
    instruments = {name: Instrument(venue="x", symbol=name, calendar=ALWAYS, can_short=name == "B") for name in ("A", "B")}
    weights = target_weights("own", predictions, {}, instruments, known=known).sort("symbol")["weight"]
    assert weights.to_list() == [0.5, 0.5, -0.5, -0.5]


def test_a_strategy_over_bars_answers_a_row_for_each_bar(predictions: pl.DataFrame) -> None:
    known = own(lambda bars: bars.head(1).select("symbol", "open_time", weight=1.0), needs="bars")
    bars = predictions.rename({"prediction": "close"})
    assert target_weights("own", bars, {}, {}, known=known)["weight"].to_list() == [1.0, None, None, None]


@pytest.mark.parametrize(
    ("weigh", "reason"),
    [
        (lambda frame: 1, "must return a polars frame"),
        (lambda frame: frame, "must return a polars frame of symbol, open_time and weight"),
        (lambda frame: frame.with_columns(weight=pl.lit("much")), "returns times that are not times"),
        (lambda frame: frame.with_columns(weight=pl.lit(float("inf"))), "an infinite weight"),
        (lambda frame: pl.concat([frame, frame]).with_columns(weight=0.1), "two weights for one bar"),
        (
            lambda frame: frame.with_columns(pl.col("open_time") + timedelta(hours=1), weight=pl.lit(0.1)),
            "a bar that it was not given",
        ),
        (lambda frame: frame["absent"], "The strategy own failed: ColumnNotFoundError"),
    ],
)
def test_an_answer_that_is_no_weights_is_refused(predictions: pl.DataFrame, weigh: Weigh, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        target_weights("own", predictions, {}, {}, known=own(weigh))


def test_what_is_no_number_asks_for_nothing(predictions: pl.DataFrame) -> None:
    known = own(lambda frame: frame.select("symbol", "open_time", weight=pl.lit(float("nan"))))
    assert target_weights("own", predictions, {}, {}, known=known)["weight"].to_list() == [None] * 4


def test_a_name_that_ships_cannot_be_given_to_another() -> None:
    require_free("own")
    with pytest.raises(InputError, match="already a strategy named 'quantile'"):
        require_free("quantile")


def test_the_version_of_a_strategy_of_one_s_own_counts_its_code() -> None:
    one, two = (Strategies({"own": custom_strategy("own", positive, source=source)}) for source in ("a", "b"))
    assert one.code_version("own") != two.code_version("own")
    assert one.code_version("quantile") == two.code_version("quantile")
