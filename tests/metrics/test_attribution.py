"""Attribution: every part adds up to what the account earned, whatever happened to it."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, FREE, Market, actions, bars, day, instrument, one, weights
from tidemill.backtest.backtest import BacktestResult, backtest
from tidemill.domain.experiment import CostSpec
from tidemill.metrics.attribution import ENGINES, Earned, attribution, by_engine, engine_shares, market_beta
from tidemill.steps.trading.attribution import attribution_of


def run(market: Market, **changes: object) -> BacktestResult:
    given = {
        "interval": DAY,
        "instruments": market.instruments,
        "adjustments": market.actions,
        "costs": market.costs,
        **changes,
    }
    return backtest(market.bars, market.weights, **given)  # type: ignore[arg-type]  # any argument


@given(seed=st.integers(0, 100_000), suspect=st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_part_adds_up_to_the_change_of_equity(seed: int, suspect: bool) -> None:
    market = Market(seed)
    odd = market.bars.filter(pl.col("open_time") == day(12)).select("symbol", "open_time") if suspect else None
    result = run(market, suspected=odd, dead_after=3)
    earned, scale = result.final_equity - result.capital, 1e-9 * (result.traded + result.capital)
    frame, _ = attribution_of(result)
    for part, rows in frame.group_by("part"):
        assert rows["profit"].sum() == pytest.approx(earned, abs=scale), part
        assert rows["return"].sum() == pytest.approx(earned / result.capital, abs=scale / result.capital), part
    by_slot = result.profits.group_by("time").agg(pl.col("profit").sum()).sort("time")
    change = result.equity.with_columns(pl.col("equity").diff().fill_null(pl.col("equity") - result.capital))
    both = change.join(by_slot, on="time", how="left").fill_null(0.0)
    np.testing.assert_allclose(both["profit"].to_numpy(), both["equity"].to_numpy(), atol=scale)
    assert result.contributions["fees"].sum() == pytest.approx(result.fees)
    assert result.contributions["slippage"].sum() == pytest.approx(result.slippage)
    assert result.contributions["borrow"].sum() == pytest.approx(result.borrow)


def test_each_symbol_gets_its_own_cash() -> None:
    market = bars({"A": [(at, 10.0 + at, 10.0 + at, 1e9) for at in range(4)], "B": [(at, 20.0, 20.0, 1e9) for at in range(4)]})
    paid = actions([("B", "dividend", 2, 1.0)])
    costs = CostSpec(fee_bps=100, slippage_bps=0, capital=1_000)
    asked = weights([("A", 0, 0.4), ("B", 0, 0.4)])
    result = backtest(market, asked, interval=DAY, instruments={}, adjustments=paid, costs=costs)
    units = {"A": 400 / 11 / 1.01, "B": 400 / 20 / 1.01}
    fees = {"A": units["A"] * 0.11, "B": units["B"] * 0.2}
    found = {row["symbol"]: row for row in result.contributions.to_dicts()}
    assert found["A"]["profit"] == pytest.approx(units["A"] * 2 - fees["A"])  # bought at 11, 13 at the end
    assert found["B"]["profit"] == pytest.approx(units["B"] * 1 - fees["B"])  # the dividend
    assert found["A"]["before_costs"] == pytest.approx(units["A"] * 2)


def test_a_short_pays_its_own_borrow() -> None:
    short = {"A": instrument("A", can_short=True, borrow_bps=365.0), "B": instrument("B")}
    market = pl.concat([one("A", [10.0] * 5), one("B", [10.0] * 5)])
    result = backtest(market, weights([("A", 0, -0.5), ("B", 0, 0.5)]), interval=DAY, instruments=short, costs=FREE)
    paid = pytest.approx(500 * 1e-4 * 3)
    row = result.contributions.row(0, named=True)
    assert (row["symbol"], row["borrow"], -row["profit"]) == ("A", paid, paid)
    assert row["before_costs"] == pytest.approx(0.0, abs=1e-9)
    assert result.contributions.height == 1


def test_a_book_that_is_twice_the_market_is_all_market() -> None:
    random = np.random.default_rng(0)
    market = random.normal(0, 0.01, 50)
    equity = 100.0 * np.cumprod(1 + 2 * market)
    frame, beta = attribution(Earned(100.0, equity, 0.0, 0.0, 0.0, pl.DataFrame({"symbol": ["A"], "profit": [0.0]})), market)
    rows = {(part, name): profit for part, name, profit in frame.select("part", "name", "profit").iter_rows()}
    assert beta == pytest.approx(2.0)
    assert rows["market", "market"] == pytest.approx(equity[-1] - 100.0)
    assert rows["market", "selection"] == pytest.approx(0.0, abs=1e-9)


def test_beta_is_the_slope_and_zero_where_there_is_none() -> None:
    random = np.random.default_rng(1)
    market, noise = random.normal(0, 0.01, 200), random.normal(0, 0.01, 200)
    own = 0.7 * market + noise
    own[5], market[9] = np.nan, np.nan
    known = np.isfinite(own) & np.isfinite(market)
    assert market_beta(own, market) == pytest.approx(np.polyfit(market[known], own[known], 1)[0])
    assert market_beta(own, np.zeros(200)) == 0.0
    assert market_beta(own[:1], market[:1]) == 0.0


def test_an_engine_is_credited_for_what_it_wanted() -> None:
    signals = weights([("A", 0, 0.5), ("B", 0, -0.5), ("C", 0, 0.1), ("A", 2, 0.0), ("D", 0, None)])
    ranks = weights([]).select("symbol", "open_time")
    ranks = pl.DataFrame({"symbol": ["A", "B", "C"], "open_time": [day(0)] * 3, "x": [1.0, 1.0, -1.0], "y": [3.0, -2.0, None]},
                         schema_overrides={"open_time": ranks.schema["open_time"]})  # fmt: skip
    shares = engine_shares(signals, ranks, {"x": 0.5, "y": 0.5})
    assert shares.select("symbol", "x", "y").rows() == [("A", 0.25, 0.75), ("B", 0.0, 1.0), ("C", 0.5, 0.5)]
    columns = {"time": [day(0), day(1), day(3), day(2)], "symbol": ["A", "A", "A", "B"], "profit": [8.0, 4.0, 4.0, 1.0]}
    cells = pl.DataFrame(columns, schema_overrides={"time": ranks.schema["open_time"]})
    # Day 0 lies before anything was asked for: shared alike. Day 3 is the way out of what was asked for on day 0.
    assert by_engine(cells, shares, ("x", "y")).rows() == [("x", 4.0 + 1.0 + 1.0), ("y", 4.0 + 3.0 + 3.0 + 1.0)]


@given(seed=st.integers(0, 10_000), weight=st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_the_engines_parts_add_up_too(seed: int, weight: float) -> None:
    market = Market(seed)
    result = run(market)
    random = np.random.default_rng(seed)
    rows = market.weights.select("symbol", "open_time")
    ranks = rows.with_columns(pl.Series(name, random.normal(size=rows.height)) for name in ("x", "y", "z"))
    shares = engine_shares(market.weights, ranks, {"x": weight, "y": 1.0 - weight, "z": 0.0})
    engines = by_engine(result.profits, shares, ("x", "y", "z"))
    earned = result.final_equity - result.capital
    assert engines["profit"].sum() == pytest.approx(earned, abs=1e-9 * (result.traded + result.capital))
    frame, _ = attribution(Earned(result.capital, result.equity_values, 0.0, 0.0, 0.0, result.contributions), None, engines)
    assert frame.filter(pl.col("part") == ENGINES).height == 3
