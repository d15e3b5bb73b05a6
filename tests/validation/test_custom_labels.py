"""Labels of one's own: their values, when they are known, and the horizon that they must keep."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.validation.custom_labels import custom_labels
from tidemill.validation.labels import Label, Labels, forward_return, require_free

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = Interval.parse("1d")
Run = Callable[[pl.DataFrame], pl.DataFrame]


def panel(days: int = 60, symbols: tuple[str, ...] = ("A", "B", "C")) -> pl.DataFrame:
    """Random walks; the last symbol ends a third earlier."""
    frames = []
    for number, symbol in enumerate(symbols):
        count = days - (days // 3 if number == len(symbols) - 1 else 0)
        close = 50.0 * np.exp(np.cumsum(np.random.default_rng(number).normal(0.0, 0.02, count)))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * count,
                    "open_time": [START + timedelta(days=day) for day in range(count)],
                    "open": close * 1.001,
                    "high": close * 1.01,
                    "low": close * 0.99,
                    "close": close,
                    "volume": np.arange(count, dtype=np.float64) + 1.0,
                },
                schema_overrides={"open_time": pl.Datetime("us", "UTC")},
            )
        )
    return pl.concat(frames)


def of(run: Run, horizon: int = 3) -> Label:
    return Label(name="own", horizon=horizon, run=run, source="x")


def ahead(bars: int, column: str = "open") -> pl.Expr:
    return pl.col(column).shift(-bars).over("symbol")


def forward(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select("symbol", "open_time", own=ahead(4) / ahead(1) - 1)


def test_the_return_from_the_next_open_written_by_oneself_is_the_shipped_label() -> None:
    bars = panel()
    assert custom_labels(bars, of(forward)).equals(forward_return(bars, 3, DAY))


def test_a_label_is_known_at_the_open_of_the_bar_after_its_horizon_and_null_until_then() -> None:
    made = custom_labels(panel(), of(lambda bars: bars.select("symbol", "open_time", own=pl.lit(1.0))))
    own = made.filter(pl.col("symbol") == "C")
    assert own["label"].to_list() == [1.0] * 36 + [None] * 4
    assert own["label_end_at"].to_list() == [START + timedelta(days=day + 4) for day in range(36)] + [None] * 4


def test_what_is_no_number_is_no_label() -> None:
    def holed(bars: pl.DataFrame) -> pl.DataFrame:
        at = pl.int_range(pl.len()).over("symbol")
        value = pl.when(at == 5).then(float("nan")).when(at == 6).then(float("inf")).when(at == 7).then(None).otherwise(1.0)
        return bars.select("symbol", "open_time", own=value)

    made = custom_labels(panel(), of(holed)).filter(pl.col("symbol") == "A")
    assert made["label"].is_null()[5:8].to_list() == [True] * 3
    assert made["label_end_at"].is_null().equals(made["label"].is_null(), check_names=False)


def test_two_classes_are_numbers_too() -> None:
    made = custom_labels(panel(), of(lambda bars: bars.select("symbol", "open_time", own=ahead(4) > ahead(1))))
    assert set(made["label"].drop_nulls().to_list()) == {0.0, 1.0}


def demeaned(bars: pl.DataFrame) -> pl.DataFrame:
    raw = bars.select("symbol", "open_time", raw=ahead(4) / ahead(1) - 1)
    return raw.select("symbol", "open_time", own=pl.col("raw") - pl.col("raw").mean().over("open_time"))


@pytest.mark.parametrize(
    "run",
    [
        lambda bars: bars.select("symbol", "open_time", own=ahead(5) / ahead(1) - 1),  # one bar more
        lambda bars: bars.select("symbol", "open_time", own=ahead(4, "close") / ahead(1) - 1),  # a close, known a bar later
        lambda bars: bars.select("symbol", "open_time", own=pl.col("close") / pl.col("close").mean().over("symbol")),
        lambda bars: bars.select("symbol", "open_time", own=pl.col("close").rolling_max(9, center=True).over("symbol")),
    ],
)
def test_a_label_that_reads_beyond_its_horizon_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match=r"reads beyond its horizon of 3 bars: .* Declare a longer horizon\."):
        custom_labels(panel(), of(run))


def test_a_longer_horizon_makes_the_same_function_honest() -> None:
    late = custom_labels(panel(), of(lambda bars: bars.select("symbol", "open_time", own=ahead(5) / ahead(1) - 1), horizon=4))
    assert late["label"].drop_nulls().len() > 0


def test_a_label_relative_to_the_other_symbols_is_honest_though_one_of_them_ends() -> None:
    assert custom_labels(panel(), of(demeaned))["label"].drop_nulls().len() > 0


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda bars: bars.select("symbol", "open_time", own=pl.lit("up")), "does not return numbers"),
        (lambda bars: bars.select("symbol", "open_time"), "own"),
    ],
)
def test_an_answer_that_is_no_label_is_refused(run: Run, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        custom_labels(panel(), of(run))


def test_a_label_is_found_by_its_name_and_cannot_take_another_s() -> None:
    own = of(forward)
    known = Labels({"own": own})
    assert known.names() == ("forward_return", "own")
    assert known.find("own") is own
    assert known.find("forward_return") is None
    with pytest.raises(UnknownNameError, match="Choose one of: forward_return"):
        Labels().find("own")
    require_free("own")
    with pytest.raises(InputError, match="already a label named 'forward_return'"):
        require_free("forward_return")
