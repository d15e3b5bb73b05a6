"""The moving-average cross: a tiny example by hand, and an independent account."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, day, one
from tests.strategies.weights import target_weights
from tidemill.backtest.by_strategy import backtest_strategy
from tidemill.backtest.result import summary
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import CostSpec


def test_a_tiny_example_by_hand() -> None:
    #         fast 1 = close, slow 2 = mean of two closes; long while the close lies above it, that is, while it rises.
    market = one("A", [10, 11, 12, 13, 14], [10, 12, 13, 11, 11])
    weights = target_weights("sma_cross", market, {"fast": 1, "slow": 2}, {})
    assert weights.get_column("weight").to_list() == [None, 1.0, 1.0, 0.0, 0.0]
    costs = CostSpec(fee_bps=100, slippage_bps=0)
    result = backtest_strategy("sma_cross", {"fast": 1, "slow": 2}, market, interval=DAY, instruments={}, costs=costs)
    # Long from the close of day 1: buy at 12 on day 2; flat from the close of day 3: sell at 14 on day 4.
    units = 1_000_000 / (12 * 1.01)
    answer = summary(result)
    assert answer["equity"] == pytest.approx([1e6, 1e6, units * 13, units * 11, units * 14 * 0.99])
    assert answer["final_equity"] == pytest.approx(units * 14 * 0.99)
    assert answer["fees"] == pytest.approx(0.01 * units * 26)
    assert answer["trades"] == 1
    assert answer["max_drawdown"] == pytest.approx(11 / 13 - 1)
    assert result.trades.get_column("entry_time").to_list() == [day(2)]


def account(opens: np.ndarray, closes: np.ndarray, fast: int, slow: int, fee: float) -> list[float]:
    """All in or flat, next open, fractional; signals by pandas."""
    series = pd.Series(closes)
    difference = (series.rolling(fast).mean() - series.rolling(slow).mean()).to_numpy()
    cash, units, equity = 1_000_000.0, 0.0, []
    for at, (opened, closed) in enumerate(zip(opens, closes, strict=True)):
        signal = difference[at - 1] if at else np.nan
        if not np.isnan(signal) and signal > 0 and units == 0:
            units, cash = cash / (opened * (1 + fee)), 0.0
        elif not np.isnan(signal) and signal <= 0 and units > 0:
            units, cash = 0.0, units * opened * (1 - fee)
        equity.append(cash + units * closed)
    return equity


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 10), st.sampled_from([0.0, 5.0, 100.0]))
def test_it_equals_an_account_kept_in_plain_python(seed: int, fast: int, more: int, fee_bps: float) -> None:
    random = np.random.default_rng(seed)
    closes = 50 * np.exp(np.cumsum(random.normal(0, 0.02, 80)))
    opens = closes * np.exp(random.normal(0, 0.01, 80))
    params = {"fast": fast, "slow": fast + more}
    result = backtest_strategy("sma_cross", params, one("A", opens, closes), interval=DAY, instruments={},
                               costs=CostSpec(fee_bps=fee_bps, slippage_bps=0))  # fmt: skip
    expected = account(opens, closes, fast, fast + more, fee_bps / 1e4)
    np.testing.assert_allclose(result.equity.get_column("equity").to_numpy(), expected, rtol=1e-9)


def test_constant_prices_give_no_signal_and_too_few_bars_give_none_at_all() -> None:
    flat = target_weights("sma_cross", one("A", [0.1] * 6), {"fast": 2, "slow": 3}, {})
    assert flat.get_column("weight").to_list() == [None, None, 0.0, 0.0, 0.0, 0.0]
    short = target_weights("sma_cross", one("A", [1, 2]), {"fast": 2, "slow": 3}, {})
    assert short.get_column("weight").null_count() == 2


def test_signals_do_not_depend_on_the_start_of_history_or_on_other_symbols() -> None:
    random = np.random.default_rng(4)
    market = pl.concat([one(name, np.exp(random.normal(3, 0.1, 60))) for name in ("A", "B")])
    both = target_weights("sma_cross", market, {"fast": 3, "slow": 7}, {}).filter(pl.col("symbol") == "B")
    late = market.filter((pl.col("symbol") == "B") & (pl.col("open_time") >= day(20)))
    alone = target_weights("sma_cross", late, {"fast": 3, "slow": 7}, {})
    np.testing.assert_array_equal(both.get_column("weight")[26:].to_numpy() * 2, alone.get_column("weight")[6:].to_numpy())


def test_each_of_n_symbols_enters_with_an_equal_share() -> None:
    market = pl.concat([one(name, [10, 11, 12, 12]) for name in ("A", "B", "C", "D")])
    result = backtest_strategy("sma_cross", {"fast": 1, "slow": 2}, market, interval=DAY, instruments={},
                               costs=CostSpec(fee_bps=0, slippage_bps=0))  # fmt: skip
    assert result.fills.get_column("quantity").to_list() == pytest.approx([250_000 / 12] * 4)


def test_signals_come_from_adjusted_bars_and_fills_from_raw_ones() -> None:
    raw = one("A", [10, 11, 12, 6, 6], [10, 11, 12, 6, 6])
    adjusted = one("A", [10, 11, 12, 12, 12.5], [10, 11, 12, 12.5, 13])
    result = backtest_strategy("sma_cross", {"fast": 1, "slow": 2}, raw, interval=DAY, instruments={}, signal_bars=adjusted,
                               costs=CostSpec(fee_bps=0, slippage_bps=0))  # fmt: skip
    assert result.fills.select("side", "price").rows() == [("buy", 12.0)]
    with pytest.raises(InputError, match="same rows"):
        backtest_strategy("sma_cross", {}, raw, interval=DAY, instruments={}, signal_bars=adjusted[:3])


@pytest.mark.parametrize("params", [{"fast": 0}, {"fast": 30, "slow": 30}, {"fast": "many"}, {"slow": 10**9}])
def test_parameters_that_make_no_sense_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(InputError, match="sma_cross"):
        target_weights("sma_cross", one("A", [1, 2]), params, {})


def test_an_unknown_parameter_is_refused_with_the_choices_and_texts_are_read_as_numbers() -> None:
    with pytest.raises(UnknownNameError, match="fast, slow"):
        target_weights("sma_cross", one("A", [1, 2]), {"window": 3}, {})
    assert target_weights("sma_cross", one("A", [1, 2]), {"fast": "1", "slow": "2"}, {}).get_column("weight").to_list() == [
        None,
        1.0,
    ]


def test_unsorted_bars_are_refused() -> None:
    mixed = pl.concat([one("A", [1, 2]), one("B", [1, 2]), one("A", [1, 2])])
    with pytest.raises(InputError, match="sorted"):
        target_weights("sma_cross", mixed, {}, {})
