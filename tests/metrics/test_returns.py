"""The 15 metrics against an oracle written from the published formulas with pandas and scipy, and against bad input."""

import math
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tidemill.domain.errors import InputError
from tidemill.metrics import returns as metrics
from tidemill.metrics.returns import performance_metrics

NAMES = [
    *("total_return", "annual_return", "annual_volatility", "sharpe", "sortino", "max_drawdown", "calmar", "omega"),
    *("tail_ratio", "value_at_risk_95", "conditional_value_at_risk_95", "skew", "excess_kurtosis", "win_rate"),
    "profit_factor",
]


def oracle(values: list[float], periods: float) -> dict[str, float]:
    series = pd.Series(values, dtype=float)
    wealth = pd.concat([pd.Series([1.0]), (1 + series).cumprod()], ignore_index=True)
    total = wealth.iloc[-1] - 1
    annual = wealth.iloc[-1] ** (periods / len(series)) - 1  # of a lost fortune, 1 + total has few digits left
    drawdown = (wealth / wealth.cummax() - 1).min()
    losses = -series[series < 0].sum()
    worst = series.sort_values().iloc[: int((len(series) - 1) * 0.05) + 1]
    downside = math.sqrt((series.clip(upper=0) ** 2).mean()) * math.sqrt(periods)
    return {
        "total_return": total,
        "annual_return": annual,
        "annual_volatility": series.std() * math.sqrt(periods),
        "sharpe": series.mean() / series.std() * math.sqrt(periods),
        "sortino": series.mean() * periods / downside if downside else math.nan,
        "max_drawdown": drawdown,
        "calmar": annual / -drawdown if drawdown < 0 else math.nan,
        "omega": series[series > 0].sum() / losses if losses else math.nan,
        "tail_ratio": abs(series.quantile(0.95)) / abs(series.quantile(0.05)),
        "value_at_risk_95": series.quantile(0.05),
        "conditional_value_at_risk_95": worst.mean(),
        "skew": stats.skew(series),
        "excess_kurtosis": stats.kurtosis(series),
        "win_rate": (series > 0).sum() / (series != 0).sum(),
        "profit_factor": series[series > 0].sum() / losses if losses else math.nan,
    }


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 300), st.sampled_from([12.0, 52.0, 252.0, 8_760.0]), st.floats(0.0001, 0.2))
def test_every_metric_equals_its_formula(seed: int, count: int, periods: float, spread: float) -> None:
    random = np.random.default_rng(seed)
    values = np.clip(random.standard_t(4, count) * spread + 0.0005, -0.9, 2.0)
    values[random.random(count) < 0.05] = 0.0
    if values.std() == 0.0:
        return
    found = performance_metrics(values, periods)
    assert list(found) == NAMES
    with np.errstate(all="ignore"):
        known = oracle(values.tolist(), periods)
    for name, expected in known.items():
        if not math.isfinite(expected) or abs(expected) > 1e250:
            continue
        assert found[name] == pytest.approx(expected, rel=1e-8, abs=1e-11), name


def test_figures_computed_by_hand() -> None:
    found = performance_metrics([0.1, -0.1, 0.2, 0.0], 4)
    assert found["total_return"] == pytest.approx(1.1 * 0.9 * 1.2 - 1)
    assert found["annual_return"] == pytest.approx(1.1 * 0.9 * 1.2 - 1)
    assert found["max_drawdown"] == pytest.approx(-0.1)
    assert found["sortino"] == pytest.approx(0.05 / math.sqrt(0.01 / 4) * 2)
    assert found["win_rate"] == pytest.approx(2 / 3)
    assert found["profit_factor"] == found["omega"] == pytest.approx(3.0)
    assert found["conditional_value_at_risk_95"] == pytest.approx(-0.1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(width=64), st.just(float("nan")), st.sampled_from([-1.0, 0.0, 1e308, -1e308, 5e-324])), max_size=30
    )
)
def test_no_input_of_numbers_raises_or_warns_and_what_is_not_defined_is_none(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = performance_metrics(values)
    assert list(found) == NAMES
    assert all(value is None or math.isfinite(value) for value in found.values())


def test_nothing_one_row_and_constant_returns_have_the_stated_answers() -> None:
    assert set(performance_metrics([]).values()) == {None}
    assert set(performance_metrics([float("nan"), float("inf")]).values()) == {None}
    single = performance_metrics([0.01], 252)
    assert single["total_return"] == pytest.approx(0.01)
    assert [single[name] for name in ("annual_volatility", "sharpe", "sortino", "omega", "skew")] == [None] * 5
    constant = performance_metrics([0.01] * 20, 252)
    assert constant["annual_volatility"] == 0.0
    assert constant["max_drawdown"] == 0.0
    assert [constant[name] for name in ("sharpe", "sortino", "calmar", "omega", "skew", "profit_factor")] == [None] * 6


def test_missing_returns_are_left_out_as_if_they_were_not_there() -> None:
    assert performance_metrics([0.1, float("nan"), -0.1]) == performance_metrics([0.1, -0.1])
    assert performance_metrics(pl.Series([0.1, None, -0.1])) == performance_metrics([0.1, -0.1])


def test_an_account_that_lost_everything_stays_at_zero() -> None:
    found = performance_metrics([0.1, -1.0, 0.5])
    assert (found["total_return"], found["annual_return"], found["max_drawdown"]) == (-1.0, -1.0, -1.0)
    np.testing.assert_array_equal(metrics.growth([0.5, -1.5, 3.0]), [1.5, 0.0, 0.0])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10.0))
def test_ratios_do_not_depend_on_leverage_and_spreads_grow_with_it(seed: int, leverage: float) -> None:
    values = np.random.default_rng(seed).normal(0.0003, 0.01, 200)
    for ratio in (metrics.sharpe, metrics.sortino):
        assert ratio(values * leverage, 252) == pytest.approx(ratio(values, 252), rel=1e-9)
    assert metrics.annual_volatility(values * leverage, 252) == pytest.approx(leverage * metrics.annual_volatility(values, 252))
    assert metrics.skew(values * leverage) == pytest.approx(metrics.skew(values), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_drawdown_is_never_above_zero_and_its_depth_is_the_maximum(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 0.02, 100)
    fallen = metrics.drawdown(values)
    assert (fallen <= 0.0).all()
    assert metrics.max_drawdown(values) == fallen.min()


def test_what_is_not_one_row_of_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="one row"):
        performance_metrics([[0.1, 0.2]])
    with pytest.raises(InputError, match="numbers"):
        performance_metrics(["a", "b"])
    with pytest.raises(InputError, match="periods"):
        performance_metrics([0.1], 0.0)
