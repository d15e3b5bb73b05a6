"""The scanned step against a slow simulator, and properties that hold for every market."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, Market
from tests.backtest.reference import simulate
from tidemill.backtest.backtest import BacktestResult, backtest
from tidemill.risk.limits import UNLEVERED, Limits

SEEDS = st.integers(0, 10_000_000)
COLLARS = st.sampled_from([math.inf, 0.05, 0.02, 0.005])
LIMITS = st.sampled_from([UNLEVERED, Limits(0.3, 0.8, 0.2), Limits(1.0, 1.5, 0.3), Limits(0.5, 0.5, 0.1)])


def run(
    market: Market,
    *,
    bars: pl.DataFrame | None = None,
    resize: bool = True,
    dead_after: int = 6,
    limits: Limits = UNLEVERED,
    collar: float = math.inf,
) -> BacktestResult:
    traded = market.bars if bars is None else bars
    held = traded.get_column("symbol").unique().to_list()
    times = traded.get_column("open_time").unique().to_list()
    asked = market.weights.filter(pl.col("symbol").is_in(held) & pl.col("open_time").is_in(times))
    return backtest(
        traded,
        asked,
        interval=DAY,
        instruments=market.instruments,
        adjustments=market.actions,
        costs=market.costs,
        resize=resize,
        dead_after=dead_after,
        limits=limits,
        collar=collar,
    )


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.booleans(), LIMITS, COLLARS)
def test_the_scanned_step_equals_a_slow_simulator_on_any_market(seed: int, resize: bool, limits: Limits, collar: float) -> None:
    market = Market(seed)
    result = run(market, resize=resize, limits=limits, collar=collar)
    expected, account = simulate(market, dead_after=6, resize=resize, limits=limits, collar=collar)
    assert result.orders["collar"] == account.collared
    np.testing.assert_allclose(result.equity.get_column("equity").to_numpy(), expected, rtol=1e-9)
    assert result.fees == pytest.approx(account.fees, rel=1e-9)
    assert result.slippage == pytest.approx(account.slippage, rel=1e-9)
    assert result.borrow == pytest.approx(account.borrow, rel=1e-9)
    assert result.dividends == pytest.approx(account.dividends, rel=1e-9, abs=1e-9)
    last = result.positions.filter(pl.col("time") == market.bars.get_column("open_time").max())
    held = dict(zip(last.get_column("symbol"), last.get_column("quantity"), strict=True))
    assert held == pytest.approx({symbol: units for symbol, units in account.units.items() if units}, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_final_equity_is_the_start_plus_price_moves_plus_dividends_less_every_cost(seed: int) -> None:
    market = Market(seed)
    # A dividend in a hole lowers the mark before there is a price that shows it; here every one meets its bar.
    market.actions = market.actions.filter(pl.col("kind") == "dividend").join(
        market.bars, left_on=["symbol", "ex_time"], right_on=["symbol", "open_time"], how="semi"
    )
    result = run(market, dead_after=1_000)
    opens = {(row["symbol"], row["open_time"]): row["open"] for row in market.bars.iter_rows(named=True)}
    closes = market.bars.sort("open_time").group_by("symbol").agg(pl.col("close").last())
    last = dict(closes.iter_rows())
    moved = 0.0
    fills = result.fills.filter(~pl.col("settled"))
    for row in fills.iter_rows(named=True):
        sign = 1.0 if row["side"] == "buy" else -1.0
        moved += sign * row["quantity"] * (last[row["symbol"]] - opens[(row["symbol"], row["time"])])
    costs = result.fees + result.slippage + result.borrow
    assert result.final_equity == pytest.approx(result.capital + moved + result.dividends - costs, rel=1e-9)
    assert result.costs == pytest.approx(costs)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_profits_of_all_round_trips_open_and_ended_are_the_change_of_equity(seed: int) -> None:
    result = run(Market(seed))
    profit = result.trades.get_column("profit").sum() + result.open_trades.get_column("profit").sum()
    assert result.capital + profit == pytest.approx(result.final_equity, rel=1e-9)
    assert result.trades.get_column("fees").sum() + result.open_trades.get_column("fees").sum() == pytest.approx(result.fees)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(3, 38))
def test_cutting_off_the_future_changes_no_equity_of_the_past(seed: int, cut: int) -> None:
    market = Market(seed)
    whole = run(market).equity
    border = market.bars.get_column("open_time").unique().sort()[min(cut, market.bars.get_column("open_time").n_unique() - 1)]
    early = market.bars.filter(pl.col("open_time") <= border)
    if market.weights.filter(pl.col("open_time") <= border).is_empty():
        return
    part = run(market, bars=early).equity
    past = whole.filter(pl.col("time") <= border)
    assert part[:-1].equals(past[:-1])
    # At its end the shorter run settles what has no bar: the same value, summed in another order.
    assert part["equity"][-1] == pytest.approx(past["equity"][-1], rel=1e-13)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_nothing_fills_inside_the_bar_of_its_signal(seed: int) -> None:
    market = Market(seed)
    first_signal = dict(
        market.weights.filter(pl.col("weight") != 0).group_by("symbol").agg(pl.col("open_time").min()).iter_rows()
    )
    times = sorted(set(market.bars.get_column("open_time")))
    signals = {(row["symbol"], row["open_time"]) for row in market.weights.iter_rows(named=True)}
    for row in run(market).fills.filter(~pl.col("settled")).iter_rows(named=True):
        before = times[times.index(row["time"]) - 1]
        assert (row["symbol"], before) in signals
        assert row["time"] > first_signal[row["symbol"]]


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_no_fill_takes_more_than_a_tenth_of_its_bar_or_leaves_the_grid_of_lots_and_ticks(seed: int) -> None:
    market = Market(seed)
    fills = run(market).fills.filter(~pl.col("settled"))
    joined = fills.join(market.bars, left_on=["symbol", "time"], right_on=["symbol", "open_time"])
    assert joined.height == fills.height
    assert (joined["quantity"] <= 0.1 * joined["volume"] * (1 + 1e-9)).all()
    for row in joined.iter_rows(named=True):
        rules = market.instruments[row["symbol"]]
        assert row["price"] >= row["open"] if row["side"] == "buy" else row["price"] <= row["open"]
        for value, step in ((row["quantity"], rules.lot), (row["price"], rules.tick)):
            assert step == 0 or value / step == pytest.approx(round(value / step), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_a_spot_market_is_never_sold_short_and_says_what_was_clipped(seed: int) -> None:
    market = Market(seed)
    market.instruments = {}
    result = run(market)
    assert (result.positions.get_column("quantity") > 0).all()
    assert result.borrow == 0.0
    assert bool(result.clips["short"]) == any("cannot be sold short" in note for note in result.notes)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_splits_make_no_profit_or_loss(seed: int) -> None:
    """The same market in split-adjusted prices, without the splits, gives the same equity: lots, ticks and caps aside."""
    market = Market(seed)
    market.instruments = {}
    splits = market.actions.filter(pl.col("kind") == "split")
    market.actions = splits
    raw = run(market)
    factor = market.bars.select("symbol", "open_time").with_columns(pl.lit(1.0).alias("factor"))
    for row in splits.iter_rows(named=True):
        later = (pl.col("symbol") == row["symbol"]) & (pl.col("open_time") >= row["ex_time"])
        factor = factor.with_columns(
            pl.when(later).then(pl.col("factor") * row["value"]).otherwise(pl.col("factor")).alias("factor")
        )
    adjusted = market.bars.join(factor, on=["symbol", "open_time"]).with_columns(
        pl.col("open") * pl.col("factor"), pl.col("close") * pl.col("factor"), pl.col("volume") / pl.col("factor")
    )
    market.actions = splits.clear()
    same = run(market, bars=adjusted.select(market.bars.columns))
    np.testing.assert_allclose(raw.equity["equity"].to_numpy(), same.equity["equity"].to_numpy(), rtol=1e-9)
