"""The public backtest against fills computed by hand."""

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from tests.backtest.panels import DAY, FREE, actions, bars, day, instrument, one, weights
from tidemill.backtest.backtest import BacktestResult, backtest
from tidemill.backtest.result import summary
from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.limits_reached import LevelReached, LimitsReached
from tidemill.risk.drawdown import DrawdownPolicy
from tidemill.risk.limits import Limits


def fills(result: BacktestResult) -> list[tuple[object, ...]]:
    return [row[:5] for row in result.fills.select("time", "symbol", "side", "quantity", "price").iter_rows()]


def equity(result: BacktestResult) -> list[float]:
    return result.equity.get_column("equity").to_list()


def test_a_signal_fills_at_the_next_open_with_fee_and_slippage() -> None:
    market = one("A", [10, 20, 30, 40], [11, 21, 31, 41])
    costs = CostSpec(fee_bps=100, slippage_bps=500, capital=1_000)
    result = backtest(market, weights([("A", 0, 1.0), ("A", 1, 0.0)]), interval=DAY, instruments={}, costs=costs)
    # Buy at 20 × 1.05 = 21 for all 1,000, fee included: 1,000 / (21 × 1.01). Sell all at 30 × 0.95 = 28.5.
    units = 1_000 / (21 * 1.01)
    assert fills(result) == [
        (day(1), "A", "buy", pytest.approx(units), pytest.approx(21.0)),
        (day(2), "A", "sell", pytest.approx(units), pytest.approx(28.5)),
    ]
    assert result.fees == pytest.approx(0.01 * units * (21 + 28.5))
    assert result.slippage == pytest.approx(units * (1.0 + 1.5))
    assert equity(result) == pytest.approx([1_000, units * 21, units * 28.5 * 0.99, units * 28.5 * 0.99])
    assert result.trades.row(0) == (
        "A", "long", day(1), day(2), pytest.approx(21), pytest.approx(28.5), pytest.approx(units),
        pytest.approx(result.fees), pytest.approx(units * 28.5 * 0.99 - 1_000),
    )  # fmt: skip


def test_frames_have_the_promised_columns_and_a_flat_symbol_has_no_position_row() -> None:
    result = backtest(
        one("A", [10, 20, 30, 40]), weights([("A", 0, 0.5), ("A", 1, 0.0)]), interval=DAY, instruments={}, costs=FREE
    )
    assert result.trades.columns == [
        "symbol", "side", "entry_time", "exit_time", "entry_price", "exit_price", "quantity", "fees", "profit",
    ]  # fmt: skip
    assert result.equity.columns == ["time", "equity"]
    assert result.positions.rows() == [(day(1), "A", 25.0)]
    assert result.returns.get_column("return").to_list() == pytest.approx([0.0, 0.25, 0.0])
    assert result.exposure.row(1) == (day(1), pytest.approx(0.5), pytest.approx(0.5), 0)


def test_the_summary_is_what_the_command_answers() -> None:
    result = backtest(one("A", [10, 20, 30]), weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE)
    assert summary(result) == {
        "final_equity": 1_500.0,
        "trades": 0,
        "fees": 0.0,
        "max_drawdown": 0.0,
        "equity": [1_000, 1_000, 1_500],
    }
    assert result.open_trades.get_column("profit").to_list() == [pytest.approx(500.0)]


def test_sells_run_first_and_their_proceeds_pay_for_the_buys() -> None:
    market = pl.concat([one("A", [10, 10, 10, 10]), one("B", [10, 10, 10, 10])])
    rotation = weights([("B", 0, 1.0), ("B", 1, 0.0), ("A", 1, 1.0)])
    result = backtest(market, rotation, interval=DAY, instruments={}, costs=FREE)
    assert fills(result) == [
        (day(1), "B", "buy", 100.0, 10.0),
        (day(2), "B", "sell", 100.0, 10.0),
        (day(2), "A", "buy", 100.0, 10.0),
    ]


def test_buys_share_the_cash_in_the_order_of_symbols_and_a_gap_never_spends_more_than_there_is() -> None:
    market = pl.concat([one("A", [10, 20, 20]), one("B", [10, 20, 20]), one("C", [10, 5, 5])])
    asked = weights([("A", 0, 0.6), ("B", 0, 0.4), ("C", 0, 0.0)])
    result = backtest(market, asked, interval=DAY, instruments={}, costs=FREE, reserve=0.2)
    # 800 may be spent: A takes its 600, B the 200 that are left of its 400.
    assert fills(result) == [(day(1), "A", "buy", 30.0, 20.0), (day(1), "B", "buy", 10.0, 20.0)]
    assert result.orders["partly_filled"] == 1


def test_an_order_takes_a_tenth_of_the_volume_and_the_rest_is_cancelled() -> None:
    market = one("A", [10, 10, 10, 10], volume=50.0)
    result = backtest(market, weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE)
    assert fills(result) == [(day(1), "A", "buy", 5.0, 10.0)]
    assert any("filled in part" in note for note in result.notes)


def test_without_a_bar_or_without_volume_an_order_is_cancelled_and_not_tried_again() -> None:
    other = one("B", [10, 10, 10, 10])
    gone = bars({"A": [(0, 10, 10, 1e9), (2, 10, 10, 1e9), (3, 10, 10, 1e9)]})
    asked = weights([("A", 0, 1.0)])
    missing = backtest(pl.concat([gone, other]), asked, interval=DAY, instruments={}, costs=FREE)
    dry = bars({"A": [(0, 10, 10, 1e9), (1, 10, 10, 0.0), (2, 10, 10, 1e9), (3, 10, 10, 1e9)]})
    still = backtest(pl.concat([dry, other]), asked, interval=DAY, instruments={}, costs=FREE)
    assert missing.fills.is_empty()
    assert still.fills.is_empty()
    assert (missing.orders["no_bar"], still.orders["no_volume"]) == (1, 1)
    assert any("no bar in the next slot" in note for note in missing.notes)


def test_around_the_clock_an_order_does_not_outlive_a_missing_slot_but_on_a_stock_exchange_it_waits_for_the_next_session() -> (
    None
):
    market = bars({"A": [(0, 10, 10, 1e9), (3, 10, 10, 1e9)]})
    asked = weights([("A", 0, 1.0)])
    always = {"A": instrument("A", calendar=ALWAYS)}
    stocks = {"A": instrument("A", calendar=XNYS)}
    assert backtest(market, asked, interval=DAY, instruments=always, costs=FREE).fills.is_empty()
    assert backtest(market, asked, interval=DAY, instruments=stocks, costs=FREE).fills.height == 1


def test_lots_ticks_and_minimum_notional_round_against_us() -> None:
    rules = {"A": instrument("A", lot=3.0, tick=0.5), "B": instrument("B", min_notional=200.0)}
    market = pl.concat([one("A", [10.2, 10.2, 10.2]), one("B", [10, 10, 10])])
    costs = CostSpec(fee_bps=0, slippage_bps=100, capital=1_000)
    result = backtest(market, weights([("A", 0, 0.5), ("B", 0, 0.1)]), interval=DAY, instruments=rules, costs=costs)
    # A: 10.2 × 1.01 = 10.302, up to the tick 10.5; 500 / 10.5 = 47.6 units, down to 45. B: 100 is below its minimum.
    assert fills(result) == [(day(1), "A", "buy", 45.0, 10.5)]
    assert result.orders["too_small"] == 1


def test_a_short_is_clipped_to_zero_where_the_venue_cannot_short_and_the_result_says_so() -> None:
    result = backtest(one("A", [10, 10, 10]), weights([("A", 0, -0.5)]), interval=DAY, instruments={}, costs=FREE)
    assert result.fills.is_empty()
    assert result.clips["short"] == 1
    assert result.notes == ("1 targets below zero were clipped to zero, since these cannot be sold short: A.",)


def test_a_short_earns_a_fall_owes_dividends_and_pays_borrow() -> None:
    rules = {"A": instrument("A", can_short=True, borrow_bps=3_650.0)}
    market = one("A", [100, 100, 90, 80])
    result = backtest(
        market,
        weights([("A", 0, -0.5), ("A", 2, 0.0)]),
        interval=DAY,
        instruments=rules,
        costs=FREE,
        adjustments=actions([("A", "dividend", 2, 1.0)]),
    )
    # 5 short at 100, covered at 80. Two nights of borrow at 0.1 % a day on 500 and on 450; a dividend of 1 on 5 shares.
    assert result.borrow == pytest.approx(0.5 + 0.45)
    assert result.dividends == pytest.approx(-5.0)
    assert result.final_equity == pytest.approx(1_000 + 5 * 20 - 5 - 0.95)
    trade = result.trades.row(0, named=True)
    assert (trade["side"], trade["profit"]) == ("short", pytest.approx(100 - 5 - 0.95))


def test_turning_a_position_ends_one_trade_and_begins_another_in_the_same_fill() -> None:
    rules = {"A": instrument("A", can_short=True)}
    result = backtest(
        one("A", [10, 10, 20, 20, 10]), weights([("A", 0, 0.5), ("A", 2, -0.5)]), interval=DAY, instruments=rules, costs=FREE
    )
    assert [(row[1], row[8]) for row in result.trades.rows()] == [("long", pytest.approx(500.0))]
    assert [(row[1], row[8]) for row in result.open_trades.rows()] == [("short", pytest.approx(375.0))]
    assert result.positions.rows()[-1] == (day(4), "A", pytest.approx(-37.5))


def test_a_split_changes_the_quantity_and_makes_no_profit_or_loss() -> None:
    market = bars({"A": [(0, 100, 100, 1e9), (1, 100, 100, 1e9), (2, 50, 50, 1e9), (3, 50, 50, 1e9)]})
    split = actions([("A", "split", 2, 2.0)])
    result = backtest(
        market, weights([("A", 0, 1.0), ("A", 2, 0.0)]), interval=DAY, instruments={}, costs=FREE, adjustments=split
    )
    assert equity(result) == [1_000.0] * 4
    assert result.positions.get_column("quantity").to_list() == [10.0, 20.0]
    assert result.trades.row(0)[4:] == (50.0, 50.0, 20.0, 0.0, 0.0)


def test_an_order_that_waits_over_a_split_sells_what_is_held_after_it() -> None:
    market = bars({"A": [(0, 100, 100, 1e9), (1, 100, 100, 1e9), (2, 50, 50, 1e9)]})
    split = actions([("A", "split", 2, 2.0)])
    result = backtest(
        market, weights([("A", 0, 1.0), ("A", 1, 0.5)]), interval=DAY, instruments={}, costs=FREE, adjustments=split
    )
    assert fills(result)[-1] == (day(2), "A", "sell", 10.0, 50.0)


def test_a_fraction_of_a_lot_that_a_split_leaves_is_paid_out() -> None:
    market = bars({"A": [(0, 100, 100, 1e9), (1, 100, 100, 1e9), (2, 200 / 3, 200 / 3, 1e9)]})
    result = backtest(
        market,
        weights([("A", 0, 0.9)]),
        interval=DAY,
        instruments={"A": instrument("A", lot=1.0)},
        costs=FREE,
        adjustments=actions([("A", "split", 2, 1.5)]),
    )
    assert result.positions.get_column("quantity").to_list() == [9.0, 13.0]
    assert result.final_equity == pytest.approx(1_000)
    assert result.settlements.get_column("quantity").to_list() == [pytest.approx(0.5)]


def test_dividends_are_paid_in_cash_on_the_shares_held_before_the_split_of_the_same_day() -> None:
    market = bars({"A": [(0, 100, 100, 1e9), (1, 100, 100, 1e9), (2, 49, 49, 1e9)]})
    both = actions([("A", "split", 2, 2.0), ("A", "dividend", 2, 2.0)])
    result = backtest(market, weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE, adjustments=both)
    assert result.dividends == 20.0
    assert equity(result) == [1_000, 1_000, 1_000]


def test_a_suspected_action_makes_no_profit_or_loss_and_the_result_with_it_lies_beside() -> None:
    market = bars({"A": [(0, 100, 100, 1e9), (1, 100, 100, 1e9), (2, 40, 44, 1e9)]})
    mask = pl.DataFrame({"symbol": ["A"], "open_time": [day(2)]}).with_columns(
        pl.col("open_time").cast(pl.Datetime("us", "UTC"))
    )
    result = backtest(market, weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE, suspected=mask)
    assert equity(result) == pytest.approx([1_000, 1_000, 1_100])
    assert result.with_suspected is not None
    assert equity(result.with_suspected) == pytest.approx([1_000, 1_000, 440])
    assert result.with_suspected.with_suspected is None


def test_a_symbol_that_died_closes_at_its_last_close_and_is_marked() -> None:
    market = pl.concat([bars({"A": [(0, 10, 10, 1e9), (1, 10, 8, 1e9)]}), one("B", [1] * 10)])
    result = backtest(market, weights([("A", 0, 1.0), ("B", 6, 1.0)]), interval=DAY, instruments={}, costs=FREE, dead_after=3)
    assert result.trades.row(0)[:6] == ("A", "long", day(1), day(1), 10.0, 8.0)
    assert result.settlements.select("time", "symbol", "price").rows() == [(day(4), "A", 8.0)]
    assert fills(result)[-1] == (day(7), "B", "buy", 800.0, 1.0)
    assert any("settled at the last close" in note and "A" in note for note in result.notes)


def test_a_known_delisting_settles_at_once_and_the_end_of_the_data_settles_the_rest() -> None:
    market = pl.concat([bars({"A": [(0, 10, 10, 1e9), (1, 10, 8, 1e9)]}), one("B", [1] * 5)])
    known = {"A": instrument("A", delisted_at=day(2))}
    asked = weights([("A", 0, 1.0)])
    early = backtest(market, asked, interval=DAY, instruments=known, costs=FREE)
    late = backtest(market, asked, interval=DAY, instruments={}, costs=FREE)
    assert early.settlements.get_column("time").to_list() == [day(2)]
    assert late.settlements.get_column("time").to_list() == [day(4)]
    assert equity(early) == equity(late) == [1_000, 800, 800, 800, 800]


def test_limits_cut_targets_and_the_gross_limit_never_scales_a_reduction() -> None:
    market = pl.concat([one("A", [10] * 5), one("B", [10] * 5)])
    asked = weights([("A", 0, 0.9), ("A", 2, 0.3), ("B", 2, 0.6)])
    result = backtest(market, asked, interval=DAY, instruments={}, costs=FREE, limits=Limits(max_position=0.5, max_gross=0.7))
    last = result.positions.filter(pl.col("time") == day(4))
    assert dict(zip(last["symbol"], last["quantity"], strict=True)) == pytest.approx({"A": 30.0, "B": 40.0})
    assert (result.clips["position"], result.clips["gross"]) == (2, 1)


def test_the_net_limit_scales_what_is_added_to_the_heavier_side_and_never_a_reduction() -> None:
    rules = {symbol: instrument(symbol, can_short=True) for symbol in "ABC"}
    market = pl.concat([one(symbol, [10] * 5) for symbol in "ABC"])
    asked = weights([("A", 0, 0.4), ("B", 0, 0.4), ("C", 0, -0.2), ("C", 2, 0.0)])
    limits = Limits(max_position=1.0, max_gross=2.0, max_net=0.3)
    result = backtest(market, asked, interval=DAY, instruments=rules, costs=FREE, limits=limits)
    held = dict(result.positions.filter(time=day(1)).select("symbol", "quantity").iter_rows())
    # 0.5 long beside 0.2 short is 0.3 net: the 0.8 asked for shrink together, the short stays as it is.
    assert held == pytest.approx({"A": 25.0, "B": 25.0, "C": -20.0})
    assert (result.clips["gross"], result.clips["net"]) == (0, 2)
    assert "2 targets were cut to stay within the net limit of 30% of equity." in result.notes
    covered = result.positions.filter(time=day(3))["symbol"].to_list()
    assert covered == ["A", "B"], "the short is covered, though 0.5 net are more than the limit"


def test_gross_exposure_is_scaled_before_net_exposure() -> None:
    rules = {symbol: instrument(symbol, can_short=True) for symbol in "AB"}
    market = pl.concat([one(symbol, [10] * 3) for symbol in "AB"])
    limits = Limits(max_position=1.0, max_gross=0.5, max_net=0.2)
    result = backtest(
        market, weights([("A", 0, 0.8), ("B", 0, -0.2)]), interval=DAY, instruments=rules, costs=FREE, limits=limits
    )
    held = dict(result.positions.filter(time=day(1)).select("symbol", "quantity").iter_rows())
    # Halved: 0.4 long and 0.1 short. Net 0.3 is over 0.2, so 0.3 long are left.
    assert held == pytest.approx({"A": 30.0, "B": -10.0})
    assert (result.clips["gross"], result.clips["net"]) == (2, 1)


def collared(
    opens: list[float], asked: list[tuple[str, int, float | None]], collar: float = 0.05, **more: Any
) -> BacktestResult:
    """Symbol A that closes at 100 on every day, after these opens."""
    rules = {"A": instrument("A", can_short=True)}
    market = one("A", opens, [100.0] * len(opens))
    return backtest(market, weights(asked), interval=DAY, instruments=rules, costs=FREE, collar=collar, **more)


@pytest.mark.parametrize(
    ("opened", "weight", "trades"),
    [
        (105.0, 0.5, True),
        (105.01, 0.5, False),
        (90.0, 0.5, True),
        (95.0, -0.5, True),
        (94.99, -0.5, False),
        (110.0, -0.5, True),
    ],
)
def test_a_buy_above_the_collar_and_a_sale_below_it_are_cancelled(opened: float, weight: float, trades: bool) -> None:
    result = collared([100, opened, 100], [("A", 0, weight)])
    assert (result.fills.height, result.orders["collar"]) == ((1, 0) if trades else (0, 1))
    told = "1 orders were cancelled, since they would trade over 5% off the signal's close."
    assert (told in result.notes) is not trades
    assert result.limits is not None
    assert result.limits.sentences() == (() if trades else ("Its limits cancelled 1 order at the collar.",))


def test_slippage_counts_for_the_collar() -> None:
    market, costs = one("A", [100, 104.9, 100]), CostSpec(fee_bps=0, slippage_bps=20, capital=1_000)
    result = backtest(market, weights([("A", 0, 0.5)]), interval=DAY, instruments={}, costs=costs, collar=0.05)
    assert (result.fills.height, result.orders["collar"]) == (0, 1)


def test_the_collar_of_a_reduction_doubles_each_time_it_is_cancelled_up_to_four_times() -> None:
    asked = [("A", 0, 0.5), *(("A", at, 0.0) for at in range(1, 8))]
    slow = collared([100, 100, 91, 89, 81, 79, 79, 81], asked)
    # 9 % off at 5 %, 11 % at 10 %, then 19 % at 20 %.
    assert [row[0] for row in fills(slow)] == [day(1), day(4)]
    assert slow.orders["collar"] == 2
    never = collared([100, 100, 91, 89, 79, 79, 79, 79], asked)
    assert never.orders["collar"] == 6, "more than 20 % off is never traded"


def test_the_collar_of_a_reduction_is_narrow_again_after_a_fill() -> None:
    asked = [("A", 0, 0.5), ("A", 1, 0.25), ("A", 2, 0.25), ("A", 3, 0.0)]
    result = collared([100, 100, 91, 91, 91], asked)
    assert [row[0] for row in fills(result)] == [day(1), day(3)]
    assert result.orders["collar"] == 2


def test_of_an_order_that_turns_a_position_the_wider_collar_lets_only_the_reduction_through() -> None:
    result = collared([100, 100, 92, 92, 100], [("A", 0, 0.5), ("A", 1, -0.5), ("A", 2, -0.5)])
    assert fills(result)[-1] == (day(3), "A", "sell", 5.0, 92.0)
    assert result.orders["collar"] == 2


def test_the_reference_of_the_collar_follows_splits_and_dividends() -> None:
    market = bars({"A": [(0, 100, 100, 1e9), (1, 100, 100, 1e9), (2, 47, 47, 1e9)]})
    both = actions([("A", "split", 2, 2.0), ("A", "dividend", 2, 4.0)])

    def cancelled(collar: float, adjustments: pl.DataFrame | None) -> int:
        asked = weights([("A", 0, 0.5), ("A", 1, 0.0)])
        given = {"interval": DAY, "instruments": {}, "costs": FREE, "adjustments": adjustments, "collar": collar}
        return backtest(market, asked, **given).orders["collar"]  # type: ignore[arg-type]  # any argument

    # (100 - 4) / 2 is 48, and 47 is 2.1 % below it.
    assert (cancelled(0.03, both), cancelled(0.02, both), cancelled(0.03, None)) == (0, 1, 1)


def test_a_flatten_that_the_collar_cancels_is_tried_again_in_each_slot() -> None:
    market = one("A", [100, 100, 97, 80, 80, 97], [100, 97, 97, 97, 97, 97])
    policy = DrawdownPolicy()
    result = backtest(
        market, weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE, drawdown_policy=policy, collar=0.1
    )
    # 3 % lost at the close of day 1: all is to be sold at 97 on day 2.
    assert [row[0] for row in fills(result)] == [day(1), day(2)]
    late = one("A", [100, 100, 80, 80, 80, 97], [100, 97, 97, 97, 97, 97])
    again = backtest(
        late, weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE, drawdown_policy=policy, collar=0.1
    )
    # 17.5 % off: cancelled at 10 %, sold at 20 %, though no weight is asked for again.
    assert [row[0] for row in fills(again)] == [day(1), day(3)]
    assert again.orders["collar"] == 1


def test_without_resizing_a_target_opens_closes_or_turns_a_position_and_never_trims_it() -> None:
    market = one("A", [10, 10, 20, 40, 40, 40])
    asked = weights([("A", at, weight) for at, weight in enumerate([0.5, 0.5, 0.5, 0.0])])
    held = backtest(market, asked, interval=DAY, instruments={}, costs=FREE, resize=False)
    trimmed = backtest(market, asked, interval=DAY, instruments={}, costs=FREE)
    assert held.fills.height == 2
    assert trimmed.fills.get_column("side").to_list() == ["buy", "sell", "sell"]


def test_a_cancelled_entry_is_asked_for_again_by_the_next_target() -> None:
    market = bars({"A": [(0, 10, 10, 1e9), (1, 10, 10, 0.0), (2, 10, 10, 1e9)]})
    result = backtest(market, weights([("A", 0, 1.0), ("A", 1, 1.0)]), interval=DAY, instruments={}, costs=FREE, resize=False)
    assert fills(result) == [(day(2), "A", "buy", 100.0, 10.0)]


def test_the_drawdown_policy_is_off_unless_asked_for_and_flattens_at_two_percent() -> None:
    market = one("A", [100, 100, 98, 97, 96, 120])
    asked = weights([("A", at, 1.0) for at in range(6)])
    off = backtest(market, asked, interval=DAY, instruments={}, costs=FREE)
    on = backtest(market, asked, interval=DAY, instruments={}, costs=FREE, drawdown_policy=DrawdownPolicy())
    assert off.final_equity == pytest.approx(1_200)
    # 2 % below the high at the close of day 2, so all is sold at the open of day 3, at 97.
    assert equity(on) == pytest.approx([1_000, 1_000, 980, 970, 970, 970])
    assert on.exposure.get_column("drawdown_level").to_list() == [0, 0, 3, 3, 3, 3]
    flatten = LevelReached(level="flatten", limit=0.02, first=day(2), drawdown=1.0 - 0.98, times=1, slots=4)
    assert (off.limits, on.limits) == (None, LimitsReached(
        slots=6, levels=(flatten,), held_back=4, flat_since=day(3), cut={"position": 0, "gross": 0, "net": 0}
    ))  # fmt: skip
    assert on.notes[0].startswith(
        "On 2024-01-03 the book was 2\N{NO-BREAK SPACE}% below its highest equity, so its limits closed it"
    )


def test_a_level_that_was_released_and_reached_again_is_counted_and_what_holds_something_is_not_flat() -> None:
    policy = DrawdownPolicy(block=0.01, reduce=0.05, flatten=0.5, calm_bars=2)
    market = one("A", [100, 100, 98, 100, 100, 100, 96, 96])
    result = backtest(market, weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE, drawdown_policy=policy)
    assert result.exposure["drawdown_level"].to_list() == [0, 0, 1, 1, 0, 0, 1, 1]
    block = LevelReached(level="block", limit=0.01, first=day(2), drawdown=1.0 - 0.98, times=2, slots=4)
    assert result.limits is not None
    assert (result.limits.levels, result.limits.held_back, result.limits.flat_since) == ((block,), 4, None)


def test_the_reduce_level_halves_exposure_once_and_the_block_level_adds_nothing() -> None:
    policy = DrawdownPolicy(block=0.01, reduce=0.05, flatten=0.5)
    market = one("A", [100, 100, 94, 94, 94, 94])
    asked = weights([("A", at, 1.0) for at in range(6)])
    result = backtest(market, asked, interval=DAY, instruments={}, costs=FREE, drawdown_policy=policy)
    assert result.positions.get_column("quantity").to_list() == pytest.approx([10, 10, 5, 5, 5])
    mild = backtest(one("A", [100, 100, 97, 97, 97]), weights([("A", 0, 0.5), ("A", 2, 1.0)]), interval=DAY, instruments={},
                    costs=FREE, drawdown_policy=policy)  # fmt: skip
    assert mild.positions.get_column("quantity").to_list() == pytest.approx([5, 5, 5, 5])


def test_a_target_that_a_level_of_loss_holds_back_is_not_counted_as_cut_to_the_position_limit() -> None:
    policy = DrawdownPolicy(block=0.01, reduce=0.5, flatten=0.6)
    asked = weights([("A", 0, 0.9), ("A", 2, 0.9), ("A", 3, 0.9)])  # the last two while the book is blocked
    limits = Limits(max_position=0.5)
    result = backtest(
        one("A", [100, 100, 90, 90, 90]),
        asked,
        interval=DAY,
        instruments={},
        costs=FREE,
        limits=limits,
        drawdown_policy=policy,
    )
    assert (result.clips["position"], result.clips["drawdown"]) == (1, 2)
    assert result.limits is not None
    assert result.limits.cut["position"] == 1


def test_a_ruined_account_trades_no_more_and_says_so() -> None:
    rules = {"A": instrument("A", can_short=True)}
    market = one("A", [10, 10, 25, 25, 25])
    asked = weights([("A", at, -1.0) for at in range(5)])
    result = backtest(market, asked, interval=DAY, instruments=rules, costs=FREE)
    assert result.final_equity == pytest.approx(-500)
    assert result.positions.get_column("time").to_list() == [day(1), day(2)]
    assert "ruined" in result.notes[0]
    assert result.returns.get_column("return").is_nan().to_list() == [False, False, True, True]


def test_what_cannot_be_used_is_refused_with_a_sentence() -> None:
    market, asked = one("A", [10, 10]), weights([("A", 0, 1.0)])

    def run(**given: object) -> BacktestResult:
        arguments = {"bars": market, "weights": asked, "interval": DAY, "instruments": {}, "costs": FREE, **given}
        return backtest(arguments.pop("bars"), arguments.pop("weights"), **arguments)  # type: ignore[arg-type]  # on purpose

    with pytest.raises(InputError, match="no bars"):
        run(bars=market.clear())
    with pytest.raises(InputError, match="more than once"):
        run(bars=pl.concat([market, market]))
    with pytest.raises(InputError, match="more than once"):
        run(weights=pl.concat([asked, asked]))
    with pytest.raises(UnknownNameError, match="'Z'"):
        run(weights=weights([("Z", 0, 1.0)]))
    with pytest.raises(InputError, match="infinite"):
        run(weights=weights([("A", 0, float("inf"))]))
    with pytest.raises(InputError, match="open_time"):
        run(weights=weights([("A", 7, 1.0)]))
    with pytest.raises(InputError, match="missing from the weights"):
        run(weights=asked.drop("weight"))
    with pytest.raises(InputError, match="capital"):
        run(costs=CostSpec(capital=0.0))
    with pytest.raises(InputError, match="basis points"):
        run(costs=CostSpec(fee_bps=-1.0))
    with pytest.raises(InputError, match="volume"):
        run(participation=0.0)
    with pytest.raises(InputError, match="reserve"):
        run(reserve=1.0)
    with pytest.raises(InputError, match="collar"):
        run(collar=0.0)
    with pytest.raises(InputError, match="limits"):
        run(limits=Limits(0.0, 1.0))
    with pytest.raises(InputError, match="net limits"):
        run(limits=Limits(max_net=float("nan")))
    with pytest.raises(InputError, match="rise"):
        run(drawdown_policy=DrawdownPolicy(block=0.5))
    with pytest.raises(InputError, match="dead_after"):
        run(dead_after=0)
    with pytest.raises(InputError, match="corporate action"):
        run(adjustments=actions([("A", "merger", 1, 1.0)]))
    with pytest.raises(InputError, match="above 0"):
        run(adjustments=actions([("A", "split", 1, 0.0)]))


def test_empty_and_null_weights_leave_the_capital_alone_and_weights_between_bars_are_counted() -> None:
    market = one("A", [10, 10, 10])
    for asked in (weights([]), weights([("A", 0, None)])):
        assert equity(backtest(market, asked, interval=DAY, instruments={}, costs=FREE)) == [1_000.0] * 3
    stray = weights([("A", 0, 1.0), ("A", 1, 0.5)]).with_columns(
        pl.when(pl.col("weight") == 0.5)
        .then(pl.col("open_time") + timedelta(hours=1))
        .otherwise(pl.col("open_time"))
        .alias("open_time")
    )
    result = backtest(market, stray, interval=DAY, instruments={}, costs=FREE)
    assert result.notes == ("1 weights were ignored, since no symbol has a bar at their time.",)


def test_the_order_of_rows_the_type_of_times_and_other_symbols_do_not_matter() -> None:
    market = pl.concat([one("A", [10, 11, 12]), one("B", [5, 5, 5])])
    asked = weights([("A", 0, 0.5)])
    plain = backtest(market, asked, interval=DAY, instruments={}, costs=FREE)
    shuffled = backtest(market.sample(fraction=1.0, shuffle=True, seed=1), asked, interval=DAY, instruments={}, costs=FREE)
    dates = backtest(
        market.with_columns(pl.col("open_time").dt.date()), asked.with_columns(pl.col("open_time").dt.date()), interval=DAY,
        instruments={}, costs=FREE,
    )  # fmt: skip
    alone = backtest(market.filter(pl.col("symbol") == "A"), asked, interval=DAY, instruments={}, costs=FREE)
    assert equity(plain) == equity(shuffled) == equity(dates) == equity(alone)


def test_times_off_the_grid_are_slots_of_their_own() -> None:
    market = one("A", [10, 10, 20]).with_columns(
        pl.col("open_time") + pl.Series([timedelta(0), timedelta(minutes=7), timedelta(0)])
    )
    result = backtest(market, weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=FREE)
    assert equity(result) == [1_000, 1_000, 2_000]


def test_turnover_is_notional_a_year_in_multiples_of_equity() -> None:
    market = one("A", [10.0] * 366)
    result = backtest(market, weights([("A", 0, 1.0), ("A", 100, 0.0)]), interval=DAY, instruments={}, costs=FREE)
    assert result.turnover == pytest.approx(2.0, rel=0.01)


def test_returns_before_costs_give_back_what_fees_slippage_and_borrow_took() -> None:
    costs = CostSpec(fee_bps=100, slippage_bps=0, capital=1_000)
    result = backtest(one("A", [10, 10, 10]), weights([("A", 0, 1.0)]), interval=DAY, instruments={}, costs=costs)
    assert result.returns.get_column("return")[0] == pytest.approx(-0.01 / 1.01)
    assert result.gross_returns.get_column("return").to_list() == pytest.approx([0.0, 0.0])


def test_the_log_grows_when_there_are_more_changes_than_it_had_room_for() -> None:
    flips = [("A", at, float(at % 2 == 0)) for at in range(6_000)]
    result = backtest(one("A", [10.0] * 6_001), weights(flips), interval=DAY, instruments={}, costs=FREE)
    assert result.fills.height == 6_000
    assert result.trades.height == 3_000
    assert result.final_equity == pytest.approx(1_000)
