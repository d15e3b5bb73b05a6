"""Skill of predictions against slow re-implementations with pandas and scipy, and on universes down to one symbol."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tidemill.metrics.predictions import (
    hit_rate,
    ic_by_month,
    information_coefficients,
    mode,
    newey_west_t,
    prediction_metrics,
    quantile_returns,
    scored,
    turnover,
)

START = datetime(2024, 1, 30, tzinfo=UTC)


def market(seed: int, symbols: int, times: int, skill: float = 0.3, holes: float = 0.0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    rows = []
    for at in range(times):
        for number in range(symbols):
            signal = random.normal()
            label = skill * signal + math.sqrt(1 - skill**2) * random.normal()
            if random.random() >= holes:
                rows.append((f"S{number:03d}", START + timedelta(days=at), round(signal, 1), label))
    columns = {"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "prediction": pl.Float64, "label": pl.Float64}
    return pl.DataFrame(rows, schema=columns, orient="row")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12), st.floats(0.0, 0.3))
def test_coefficients_equal_those_of_scipy_at_each_time(seed: int, symbols: int, holes: float) -> None:
    frame = market(seed, symbols, 12, holes=holes)
    if mode(frame) != "cross_section":
        return
    found = {row["time"]: row for row in information_coefficients(frame).iter_rows(named=True)}
    for (time,), own in frame.group_by("open_time"):
        x, y = own["prediction"].to_numpy(), own["label"].to_numpy()
        row = found[time]
        assert row["count"] == len(x)
        if len(x) < 3 or np.ptp(x) == 0:
            assert row["ic"] is None
            assert row["rank_ic"] is None
            continue
        assert row["ic"] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
        assert row["rank_ic"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


def slow_newey_west(values: np.ndarray, lags: int) -> float:
    count, mean = len(values), values.mean()
    variance = 0.0
    for i in range(count):
        for j in range(count):
            if abs(i - j) <= lags:
                variance += (1 - abs(i - j) / (lags + 1)) * (values[i] - mean) * (values[j] - mean)
    return mean / math.sqrt(variance / count**2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(0, 10))
def test_the_t_statistic_equals_a_double_loop(seed: int, count: int, lags: int) -> None:
    values = np.random.default_rng(seed).normal(0.1, 1.0, count)
    assert (
        newey_west_t(values, lags) == pytest.approx(slow_newey_west(values, min(lags, count - 1)), rel=1e-9)
        or lags >= count - 1
    )


def test_overlap_lowers_the_t_statistic_of_a_series_that_repeats_itself() -> None:
    repeated = np.repeat(np.random.default_rng(1).normal(0.2, 1.0, 100), 5)
    assert newey_west_t(repeated, 4) < 0.6 * newey_west_t(repeated, 0)
    assert math.isnan(newey_west_t([1.0], 2))
    assert math.isnan(newey_west_t([1.0, 1.0, 1.0], 0))


def test_a_planted_correlation_is_found() -> None:
    found = prediction_metrics(market(7, 60, 200, skill=0.2))
    assert found.ic == pytest.approx(0.2, abs=0.02)
    assert found.t_stat > 10
    assert 0.5 < found.hit_rate < 0.6
    assert found.icir == pytest.approx(found.ic / (1 / math.sqrt(59)), rel=0.15)


def test_noise_is_not_found() -> None:
    found = prediction_metrics(market(8, 60, 200, skill=0.0))
    assert abs(found.ic) < 0.02
    assert abs(found.t_stat) < 3
    assert found.hit_rate == pytest.approx(0.5, abs=0.02)


def test_quantile_returns_equal_pandas_where_quantiles_divide_the_universe() -> None:
    frame = market(3, 20, 30)
    frame = frame.with_columns(pl.col("prediction").rank("ordinal").over("open_time").cast(pl.Float64))
    table = frame.to_pandas()
    table["quantile"] = table.groupby("open_time")["prediction"].transform(lambda own: pd.qcut(own, 5, labels=False)) + 1
    expected = table.groupby(["open_time", "quantile"])["label"].mean().groupby("quantile").mean()
    found = quantile_returns(frame)
    assert found["quantile"].to_list() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(found["mean_return"].to_numpy(), expected.to_numpy(), rtol=1e-12)
    assert found["count"].sum() == frame.height


def test_there_are_never_more_quantiles_than_symbols() -> None:
    assert quantile_returns(market(3, 3, 10)).height <= 3
    assert quantile_returns(market(3, 5, 10).with_columns(pl.lit(1.0).alias("prediction"))).height == 1


def test_the_same_predictions_give_the_same_bits_however_often_they_are_asked_for() -> None:
    frame = market(7, 20, 400)
    assert len({turnover(frame) for _ in range(40)}) == 1
    assert len({tuple(quantile_returns(frame)["mean_return"]) for _ in range(40)}) == 1


def test_months_average_their_times() -> None:
    frame = market(5, 10, 40)
    months = ic_by_month(frame)
    times = information_coefficients(frame)
    january = times.filter(pl.col("time").dt.month() == 1)
    assert months["month"].to_list() == ["2024-01", "2024-02", "2024-03"]
    assert months["ic"][0] == pytest.approx(january["ic"].mean())
    assert months["count"].to_list() == [2, 29, 9]


def test_hit_rate_and_turnover_by_hand() -> None:
    rows = [
        ("A", 0, 3.0, 0.2),
        ("B", 0, 2.0, 0.1),
        ("C", 0, 1.0, 0.3),
        ("A", 1, 1.0, 0.1),
        ("B", 1, 2.0, 0.2),
        ("C", 1, 3.0, 0.3),
    ]
    frame = pl.DataFrame(
        [(symbol, START + timedelta(days=at), prediction, label) for symbol, at, prediction, label in rows],
        schema=["symbol", "open_time", "prediction", "label"],
        orient="row",
    )
    # Time 0: medians 2 and 0.2; only C is off both lines, and on the wrong side. Time 1: A and C, both right.
    assert hit_rate(frame) == pytest.approx(2 / 3)
    assert turnover(frame) == 1.0
    assert turnover(frame, quantile=0.67) == 0.5


def test_one_symbol_is_judged_over_time() -> None:
    frame = market(9, 1, 400, skill=0.5)
    found = prediction_metrics(frame, horizon=5)
    assert (found.mode, found.symbols) == ("time_series", 1.0)
    # February 2024 to March 2025; the two days of January are too few.
    assert (found.groups, information_coefficients(frame).height) == (14, 15)
    assert found.ic == pytest.approx(0.5, abs=0.12)
    signs = np.sign(frame["prediction"].to_numpy())
    assert found.turnover == pytest.approx(np.mean(signs[1:] != signs[:-1]))


@pytest.mark.parametrize("frame", [market(1, 5, 3).clear(), market(1, 1, 1), market(1, 5, 1), market(1, 2, 5)])
def test_tiny_input_gives_numbers_or_nan_and_never_an_exception(frame: pl.DataFrame) -> None:
    found = prediction_metrics(frame, horizon=3)
    assert found.groups <= max(frame.height, 1)
    assert quantile_returns(frame).height <= max(frame.height, 1)
    assert ic_by_month(frame).columns == ["month", "ic", "rank_ic", "count"]


def test_constant_predictions_have_no_coefficient() -> None:
    found = prediction_metrics(market(1, 5, 30).with_columns(pl.lit(0.1).alias("prediction")))
    assert math.isnan(found.ic)
    assert math.isnan(found.t_stat)
    assert found.groups == 0


def test_only_rows_with_both_a_prediction_and_a_label_are_scored() -> None:
    frame = market(2, 3, 3)
    value = pl.col("prediction")
    broken = pl.when(pl.col("index") == 0).then(None).when(pl.col("index") == 1).then(float("nan")).otherwise(value)
    predictions = frame.select("symbol", "open_time", "prediction").with_row_index().with_columns(broken.alias("prediction"))
    infinite = pl.when(pl.col("index") == 2).then(float("inf")).otherwise(pl.col("label"))
    labels = frame.select("symbol", "open_time", "label").with_row_index().with_columns(infinite.alias("label"))
    assert scored(predictions, labels).height == frame.height - 3
