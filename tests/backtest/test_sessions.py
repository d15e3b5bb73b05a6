"""Coins that trade every day beside stocks that do not: an order waits for its symbol's next slot, and for no longer."""

import math
import warnings
from datetime import date, datetime, timedelta

import exchange_calendars
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, FREE, START, TIME, Market, actions, bars, day, instrument, weights
from tests.backtest.reference import Days, simulate
from tidemill.backtest.backtest import BacktestResult, backtest
from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.intervals import Interval
from tidemill.risk.drawdown import DrawdownPolicy
from tidemill.risk.limits import UNLEVERED, Limits

# Day 0 was Monday, 1 January 2024: New York was closed then, and on day 14, Martin Luther King day.
FRIDAY, SATURDAY, SUNDAY, MONDAY, TUESDAY = 4, 5, 6, 7, 8
HOUR = Interval.parse("1h")
BOTH = {"BTC": instrument("BTC", calendar=ALWAYS, can_short=True), "KO": instrument("KO", calendar=XNYS, can_short=True)}
SEEDS = st.integers(0, 10_000_000)


def new_york_days(slots: int) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas' own, see tidemill.calendars
        calendar = exchange_calendars.get_calendar("XNYS", start="2023-12-01", end="2025-12-31")
    known = calendar.sessions_in_range("2024-01-01", str(START.date() + timedelta(days=slots - 1)))
    return [(session.date() - date(2024, 1, 1)).days for session in known]


def panel(slots: int = 12, missing: tuple[tuple[str, int], ...] = ()) -> pl.DataFrame:
    """BTC at 100 + day each day, KO at 10 on each session; both open and close alike."""
    coin = [(at, 100.0 + at, 100.0 + at, 1e9) for at in range(slots) if ("BTC", at) not in missing]
    stock = [(at, 10.0, 10.0, 1e9) for at in new_york_days(slots) if ("KO", at) not in missing]
    return bars({"BTC": coin, "KO": stock})


def run(market: pl.DataFrame, rows: list[tuple[str, int, float | None]], **more: object) -> BacktestResult:
    given: dict[str, object] = {"interval": DAY, "instruments": BOTH, "costs": FREE, **more}
    return backtest(market, weights(rows), **given)  # type: ignore[arg-type]  # any argument


def fills(result: BacktestResult) -> list[tuple[object, ...]]:
    rows = result.fills.filter(~pl.col("settled")).select("time", "symbol", "side", "quantity")
    return [((row[0] - START).days, *row[1:]) for row in rows.iter_rows()]


def test_a_stocks_order_of_friday_fills_at_mondays_open_while_the_coins_trade_on() -> None:
    result = run(panel(), [("KO", FRIDAY, 0.5), ("BTC", FRIDAY, 0.4)])
    assert fills(result) == [
        (SATURDAY, "BTC", "buy", pytest.approx(400.0 / 105.0)),
        (MONDAY, "KO", "buy", pytest.approx(50.0)),
    ]
    assert result.orders["no_bar"] == 0


def test_an_order_over_a_holiday_waits_for_the_session_after_it() -> None:
    # Day 14 is a Monday on which New York was closed.
    assert fills(run(panel(18), [("KO", 11, 0.5)])) == [(15, "KO", "buy", pytest.approx(50.0))]


@pytest.mark.parametrize("asked", [SATURDAY, SUNDAY])
def test_an_order_that_is_given_at_the_weekend_fills_at_mondays_open(asked: int) -> None:
    assert fills(run(panel(), [("KO", asked, 0.5)])) == [(MONDAY, "KO", "buy", pytest.approx(50.0))]


def test_a_newer_decision_replaces_the_order_that_waits() -> None:
    rows: list[tuple[str, int, float | None]] = [("KO", FRIDAY, 0.5), ("KO", SUNDAY, 0.2)]
    assert fills(run(panel(), rows)) == [(MONDAY, "KO", "buy", pytest.approx(20.0))]
    for weight in (0.0, None):
        kept = [(MONDAY, "KO", "buy", pytest.approx(50.0))] if weight is None else []
        assert fills(run(panel(), [("KO", FRIDAY, 0.5), ("KO", SATURDAY, weight)])) == kept


def test_a_decision_to_hold_withdraws_the_sale_that_waits_also_where_nothing_is_resized() -> None:
    rows: list[tuple[str, int, float | None]] = [("KO", 1, 0.5), ("KO", FRIDAY, 0.0), ("KO", SATURDAY, 0.5)]
    for resize in (True, False):
        assert fills(run(panel(), rows, resize=resize)) == [(2, "KO", "buy", pytest.approx(50.0))]


def test_a_missing_bar_in_the_next_slot_cancels_and_the_order_does_not_wait_for_the_one_after() -> None:
    absent = run(panel(missing=(("KO", MONDAY),)), [("KO", FRIDAY, 0.5), ("KO", SATURDAY, 0.5)])
    assert (fills(absent), absent.orders["no_bar"]) == ([], 1)
    assert any("no bar in the next slot" in note for note in absent.notes)
    coin = run(panel(missing=(("BTC", TUESDAY),)), [("BTC", MONDAY, 0.5)])
    assert (fills(coin), coin.orders["no_bar"]) == ([], 1)


def test_a_coins_order_passes_with_a_day_that_the_panel_lacks_and_a_stocks_waits_through_it() -> None:
    market = panel(missing=(("BTC", SUNDAY),))
    result = run(market, [("BTC", SATURDAY, 0.4), ("KO", SATURDAY, 0.5)])
    assert fills(result) == [(MONDAY, "KO", "buy", pytest.approx(50.0))]
    assert result.orders["no_bar"] == 1


def test_marks_stand_still_while_a_market_is_closed() -> None:
    rising = panel().with_columns(
        pl.when(symbol="KO").then(10.0 + (pl.col("open_time") - START).dt.total_days()).otherwise("close").alias("close")
    )
    result = run(rising, [("KO", 1, 0.5)])
    equity = dict(zip(result.equity["time"], result.equity["equity"], strict=True))
    assert equity[day(FRIDAY)] == equity[day(SATURDAY)] == equity[day(SUNDAY)]
    assert equity[day(MONDAY)] == pytest.approx(equity[day(FRIDAY)] + 50.0 * 3.0)


def test_a_stock_is_not_gone_at_a_weekend_at_the_end_of_the_data_nor_after_many_slots_of_others() -> None:
    ends = run(panel(SUNDAY + 1), [("KO", 1, 0.5)])
    assert ends.settlements.is_empty()
    assert ends.open_trades["symbol"].to_list() == ["KO"]
    patient = run(
        panel(18), [("KO", 1, 0.5)], dead_after=3
    )  # day 11 to day 15: three slots of the coin without one of the stock
    assert patient.settlements.is_empty()
    gone = tuple(("KO", at) for at in range(8, 30))
    settled = run(panel(30, missing=gone), [("KO", 1, 0.5)], dead_after=3).settlements
    assert settled["time"].to_list() == [day(10)]


def test_a_split_while_an_order_waits_changes_what_it_sells() -> None:
    halved = panel().with_columns(
        pl.when((pl.col("symbol") == "KO") & (pl.col("open_time") >= day(SUNDAY))).then(5.0).otherwise("open").alias("open"),
        pl.when((pl.col("symbol") == "KO") & (pl.col("open_time") >= day(SUNDAY))).then(5.0).otherwise("close").alias("close"),
    )
    result = run(halved, [("KO", 1, 0.5), ("KO", FRIDAY, 0.0)], adjustments=actions([("KO", "split", SUNDAY, 2.0)]))
    assert fills(result)[-1] == (MONDAY, "KO", "sell", pytest.approx(100.0))
    assert result.final_equity == pytest.approx(1_000.0)


def test_what_waits_to_be_bought_counts_as_bought_for_the_gross_limit() -> None:
    result = run(panel(), [("KO", FRIDAY, 0.7), ("BTC", SATURDAY, 1.0)], limits=Limits(max_position=1.0, max_gross=1.0))
    bought = {symbol: quantity for _, symbol, _, quantity in fills(result)}
    assert bought["BTC"] * 106.0 == pytest.approx(300.0)
    assert bought["KO"] * 10.0 == pytest.approx(700.0)
    assert result.clips["gross"] == 1


def test_what_waits_to_be_bought_counts_as_bought_for_the_net_limit() -> None:
    limits = Limits(max_position=1.0, max_gross=2.0, max_net=0.5)
    rows: list[tuple[str, int, float | None]] = [("KO", FRIDAY, 0.4), ("BTC", SATURDAY, 1.0)]
    bought = {symbol: quantity for _, symbol, _, quantity in fills(run(panel(), rows, limits=limits))}
    assert bought["KO"] * 10.0 == pytest.approx(400.0)
    assert bought["BTC"] * 106.0 == pytest.approx(100.0)


def test_a_drawdown_takes_back_what_waits_to_be_bought_and_leaves_what_waits_to_be_sold() -> None:
    falling = panel().with_columns(
        pl.when((pl.col("symbol") == "BTC") & (pl.col("open_time") >= day(SATURDAY)))
        .then(90.0)
        .otherwise("close")
        .alias("close")
    )
    policy = DrawdownPolicy()
    bought = run(falling, [("BTC", 1, 0.5), ("KO", FRIDAY, 0.4)], drawdown_policy=policy)
    assert [row[:3] for row in fills(bought)] == [(2, "BTC", "buy"), (SUNDAY, "BTC", "sell")]
    assert bought.clips["drawdown"] >= 1
    sold = run(falling, [("BTC", 1, 0.5), ("KO", 1, 0.4), ("KO", FRIDAY, 0.0)], drawdown_policy=policy)
    assert fills(sold)[-1][:3] == (MONDAY, "KO", "sell")


def test_the_market_moves_from_friday_to_monday_where_a_stock_does() -> None:
    doubled = panel().with_columns(
        pl.when((pl.col("symbol") == "KO") & (pl.col("open_time") >= day(MONDAY))).then(20.0).otherwise("close").alias("close")
    )
    moved = dict(run(doubled, []).market_returns.iter_rows())
    assert moved[day(MONDAY)] == pytest.approx(((107.0 / 106.0 - 1.0) + 1.0) / 2.0)
    assert moved[day(SUNDAY)] == pytest.approx(106.0 / 105.0 - 1.0)


def hourly(symbol: str, first: datetime, count: int, price: float) -> pl.DataFrame:
    times = [first + timedelta(hours=at) for at in range(count)]
    frame = pl.DataFrame({"symbol": symbol, "open_time": times, "open": price, "close": price, "volume": 1e9})
    return frame.cast({"open_time": TIME})


def test_no_order_fills_before_the_bar_has_closed_at_which_it_was_decided() -> None:
    # The coin's hours begin at the full hour, the stock's at half past: a slot of the stock opens while the coin's bar runs.
    opening = datetime.fromisoformat("2024-01-02T14:30:00+00:00")
    market = pl.concat([hourly("BTC", opening - timedelta(minutes=150), 12, 100.0), hourly("KO", opening, 7, 10.0)])
    noon = opening - timedelta(minutes=30)
    asked = pl.DataFrame(
        [(symbol, noon + timedelta(minutes=30 * at), 0.1 * (1 + at % 3)) for symbol in ("BTC", "KO") for at in range(10)],
        schema={"symbol": pl.String, "open_time": TIME, "weight": pl.Float64},
        orient="row",
    )
    result = backtest(market, asked, interval=HOUR, instruments=BOTH, costs=FREE)
    coin, stock = (result.fills.filter(symbol=name)["time"].to_list() for name in ("BTC", "KO"))
    # Known at 15:00, so the stock's first slot is 15:30 and the coin's 15:00; at each of the next ones the newest order is due.
    assert stock[0] == opening + timedelta(hours=1)
    assert coin[0] == opening + timedelta(minutes=30)
    assert coin == [coin[0] + timedelta(hours=at) for at in range(len(coin))]
    assert len(coin) >= 5
    units = 0.1 * 1_000.0 / 10.0  # the weight at 14:00, and not that at 14:30, which is known at 15:30
    assert result.fills.filter(symbol="KO")["quantity"][0] == pytest.approx(2 * units)


def test_the_reference_of_the_collar_is_the_close_that_was_known_when_the_order_was_decided() -> None:
    opening = datetime.fromisoformat("2024-01-02T14:30:00+00:00")
    coin = hourly("BTC", opening - timedelta(minutes=150), 8, 100.0)
    dearer = pl.when(pl.col("open_time") >= opening + timedelta(minutes=30)).then(110.0).otherwise(100.0)
    market = pl.concat([coin.with_columns(open=dearer, close=dearer), hourly("KO", opening, 7, 10.0)])
    asked = pl.DataFrame({"symbol": ["BTC"], "open_time": [opening], "weight": [0.5]})
    # Decided at 15:30, when the coin's last known close was that of 15:00; until 16:00 it closes once more, at 110.
    for collar, orders in ((0.05, (0, 1)), (0.2, (1, 0))):
        result = backtest(market, asked, interval=HOUR, instruments=BOTH, costs=FREE, collar=collar)
        assert (result.orders["filled"], result.orders["collar"]) == orders


def test_days_that_are_stamped_at_midnight_in_new_york_are_slots_beside_a_coins() -> None:
    stamped = panel().with_columns(
        pl.when(symbol="KO").then(pl.col("open_time") + timedelta(hours=5)).otherwise("open_time").alias("open_time")
    )
    friday = pl.DataFrame({"symbol": ["KO"], "open_time": [day(FRIDAY) + timedelta(hours=5)], "weight": [0.5]})
    result = backtest(stamped, friday, interval=DAY, instruments=BOTH, costs=FREE)
    assert result.fills["time"].to_list() == [day(MONDAY) + timedelta(hours=5)]


def days_of(market: Market, sessions: dict[str, list[int]]) -> Days:
    """From the days of the exchange alone; a coin has every day, whether the panel has it or not."""
    times = set(market.bars["open_time"])
    known = {symbol: sorted(set(map(day, own)) & times) for symbol, own in sessions.items()}

    def after(symbol: str, time: datetime) -> datetime | None:
        if symbol not in known:
            return time + timedelta(days=1)
        return next((own for own in known[symbol] if own > time), None)

    return Days(lambda symbol, time: symbol not in known or time in known[symbol], after)


@settings(max_examples=150, deadline=None)
@given(
    SEEDS,
    st.booleans(),
    st.sampled_from([UNLEVERED, Limits(0.3, 0.8, 0.2), Limits(1.0, 1.5, 0.3)]),
    st.sampled_from([math.inf, 0.02, 0.005]),
)
def test_a_mixed_panel_equals_a_slow_simulator_with_the_exchanges_own_days(
    seed: int, resize: bool, limits: Limits, collar: float
) -> None:
    sessions = dict.fromkeys(("S1", "S3"), new_york_days(40))
    market = Market(seed, sessions=sessions)
    held, times = set(market.bars["symbol"]), set(market.bars["open_time"])
    market.weights = market.weights.filter(pl.col("symbol").is_in(held), pl.col("open_time").is_in(times))
    market.actions = market.actions.filter(pl.col("ex_time").is_in(times))
    result = backtest(
        market.bars, market.weights, interval=DAY, instruments=market.instruments, adjustments=market.actions,
        costs=market.costs, resize=resize, dead_after=6, limits=limits, collar=collar,
    )  # fmt: skip
    expected, account = simulate(
        market, dead_after=6, resize=resize, limits=limits, collar=collar, days=days_of(market, sessions)
    )
    assert result.orders["collar"] == account.collared
    np.testing.assert_allclose(result.equity["equity"].to_numpy(), expected, rtol=1e-9)
    assert result.fees == pytest.approx(account.fees, rel=1e-9)
    assert result.borrow == pytest.approx(account.borrow, rel=1e-9)
    assert result.contributions["profit"].sum() == pytest.approx(result.final_equity - result.capital, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_mixed_panel_fills_each_symbol_when_and_where_the_panels_of_one_kind_do(seed: int) -> None:
    random, sessions = np.random.default_rng(seed), new_york_days(40)
    coins, stocks = ("BTC", "ETH"), ("KO", "PEP")
    # The first of each kind has all its bars, so that no slot is missing from a panel of one kind.
    rows = {
        symbol: [
            (at, price := float(random.uniform(5, 50)), price, 1e9)
            for at in (range(40) if symbol in coins else sessions)
            if symbol in ("BTC", "KO") or random.random() > 0.2
        ]
        for symbol in (*coins, *stocks)
    }
    asked = [
        (symbol, at, float(random.choice([0.0, 0.05])))
        for symbol, own in rows.items()
        for at, *_ in own
        if random.random() < 0.4
    ]
    known = {symbol: instrument(symbol, calendar=ALWAYS if symbol in coins else XNYS) for symbol in rows}

    def filled(symbols: tuple[str, ...]) -> pl.DataFrame:
        own, wanted = bars({symbol: rows[symbol] for symbol in symbols}), [row for row in asked if row[0] in symbols]
        result = backtest(own, weights(wanted), interval=DAY, instruments=known, costs=FREE, resize=False, dead_after=1_000)
        return result.fills.filter(~pl.col("settled")).select("time", "symbol", "side", "price").sort("symbol", "time")

    assert filled((*coins, *stocks)).equals(pl.concat([filled(coins), filled(stocks)]).sort("symbol", "time"))
