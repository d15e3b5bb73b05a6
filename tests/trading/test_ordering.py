"""The last link bar by bar: the account of a backtest to the bit, on any market, wherever it is saved and taken up."""

from collections.abc import Collection

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, Market
from tidemill.backtest.backtest import BacktestInputs, Options, backtest_panel, terms_of
from tidemill.backtest.inputs import known_actions, market_of
from tidemill.backtest.panel import bars_panel, weights_panel
from tidemill.backtest.result import BacktestResult
from tidemill.backtest.sessions import sessions_of
from tidemill.calendars import NEVER
from tidemill.domain.errors import StopError
from tidemill.domain.intervals import EPOCH
from tidemill.domain.market import AdjustmentKind
from tidemill.market.adjusting import ToldAction
from tidemill.risk.drawdown import DrawdownPolicy
from tidemill.risk.limits import UNLEVERED, Limits
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.ordering import Desk, Ordering, Traded
from tidemill.trading.slot import DIVIDEND_ACTION

OPTIONS = [
    Options(dead_after=6),
    Options(Limits(0.3, 0.8, 0.2), collar=0.02, resize=False, dead_after=6),
    Options(Limits(1.0, 1.5, 0.3), DrawdownPolicy(0.02, 0.05, 0.3), collar=0.05, reserve=0.1, dead_after=3),
    Options(UNLEVERED, DrawdownPolicy(), participation=0.5, dead_after=6),
]


def panel_of(market: Market, options: Options) -> BacktestInputs:
    panel = bars_panel(market.bars, DAY)
    held = pl.col("open_time").is_in(market.bars["open_time"].unique().implode())
    targets, _ = weights_panel(market.weights.filter(held), panel.axes)
    return BacktestInputs(panel, targets, DAY, market.instruments, market.actions)


def stepped(market: Market, inputs: BacktestInputs, options: Options, reload_at: Collection[int]) -> list[Traded]:
    """Slot by slot; at those of `reload_at` the account is saved, and taken up over symbols of which one is new."""
    axes, panel = inputs.panel.axes, market_of(inputs.panel, inputs.targets, DAY, market.instruments)
    symbols, sessions = ("A0", *axes.symbols), sessions_of(inputs.panel, DAY, market.instruments)
    terms = terms_of(symbols, market.instruments, market.costs, options)
    desk = Desk(terms, market.costs.capital, np.full(len(symbols), NEVER))
    told: dict[int, list[ToldAction]] = {}
    for slot, place, kind, value in known_actions(market.actions, axes):
        named = AdjustmentKind.DIVIDEND if kind == DIVIDEND_ACTION else AdjustmentKind.SPLIT
        time = int(axes.times[slot])
        told.setdefault(max(slot - place, 0), []).append(ToldAction(axes.symbols[place], named.value, time, value, time))
    ordering, made = Ordering(symbols, desk), []
    for slot, time in enumerate(axes.times.tolist()):
        if slot in reload_at:
            ordering = Ordering(symbols, desk, ordering.state())
        nothing = np.full(len(axes.symbols), np.nan)
        rows = np.stack([panel.open[slot], nothing, nothing, panel.close[slot], panel.volume[slot], nothing])
        own = np.ones(len(symbols), np.bool_)
        due = None
        if sessions is not None:
            counted = np.diff(sessions.ordinal, axis=0, prepend=0)[slot] > 0
            own[1:], due = counted[sessions.group], np.append(NEVER, sessions.due[slot, sessions.group])
        wide, asked = np.full((6, len(symbols)), np.nan), np.full(len(symbols), np.nan)
        wide[:, 1:], asked[1:] = rows, inputs.targets[slot]
        bars = BarsOfSlot(EPOCH, slot, wide, own, own, contiguous=bool(panel.contiguous[slot]), due=due)
        ordering.tell(told.get(slot, ()))
        one = ordering.step(bars, time, time + DAY.microseconds, asked)
        copies = (one.quantity.copy(), one.amount.copy(), one.changes.copy(), one.trades.copy())
        made.append(one._replace(**dict(zip(("quantity", "amount", "changes", "trades"), copies, strict=True))))
    return made


def require_equal(result: BacktestResult, made: list[Traded]) -> None:
    """But for the last slot, at which a backtest settles what a session goes on to hold."""
    for name in ("equity", "gross", "net", "costs"):
        expected = getattr(result._outputs, name)[:-1]
        np.testing.assert_array_equal([getattr(one, name) for one in made[:-1]], expected, err_msg=name)
    np.testing.assert_array_equal([one.level for one in made[:-1]], result._outputs.level[:-1])
    changes = np.concatenate([one.changes for one in made])
    early = changes[changes[:, 0] < len(made) - 1]
    early[:, 1] -= 1.0
    expected = result._changes[result._changes[:, 0] < len(made) - 1]
    np.testing.assert_array_equal(early, expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000_000), st.sampled_from(OPTIONS), st.booleans(), st.sets(st.integers(0, 39), max_size=4))
def test_an_account_stepped_slot_by_slot_is_that_of_the_backtest_to_the_bit(
    seed: int, options: Options, mixed: bool, reload_at: set[int]
) -> None:
    weekdays = [at for at in range(40) if at % 7 < 5]
    market = Market(seed, sessions={"S0": weekdays, "S2": weekdays} if mixed else None)
    inputs = panel_of(market, options)
    require_equal(backtest_panel(inputs, market.costs, options), stepped(market, inputs, options, reload_at))


def test_the_markets_of_the_property_trade_split_pay_and_are_clipped() -> None:
    market = Market(5)
    result = backtest_panel(panel_of(market, OPTIONS[2]), market.costs, OPTIONS[2])
    assert result.trades.height > 3
    assert result.dividends != 0.0
    assert sum(result.clips.values()) > 5


def test_what_an_account_holds_must_be_in_the_universe_that_takes_it_up() -> None:
    desk = Desk(terms_of(("A", "B"), {}, Market(1).costs, Options()), 1_000.0, np.full(2, NEVER))
    rows, true = np.full((6, 2), 10.0), np.ones(2, np.bool_)
    rows[4] = 1e9
    ordering = Ordering(("A", "B"), desk)
    for slot in range(2):
        ordering.step(BarsOfSlot(EPOCH, slot, rows, true, true), slot, slot + 1, np.array([0.5, 0.0]))
    one = Desk(terms_of(("B",), {}, Market(1).costs, Options()), 1_000.0, np.full(1, NEVER))
    with pytest.raises(StopError, match="holds A, of which its universe knows nothing"):
        Ordering(("B",), one, ordering.state())
