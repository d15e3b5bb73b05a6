"""Who earned it: the profit of every symbol in every slot, by replaying what happened to the account. Compiled.

The account's cash moves only with fills, dividends, borrow and settlements, each of one symbol, so the profits of all symbols
in a slot add up to the change of equity in it.
"""

from typing import NamedTuple

import numpy as np

from tidemill.backtest.scan import Market
from tidemill.backtest.sessions import Sessions
from tidemill.compiled import entry
from tidemill.matching.kernel import settled
from tidemill.matching.rules import SECONDS_A_YEAR, Floats, VenueRow
from tidemill.trading.slot import (
    DIVIDEND_ACTION,
    FEE,
    KIND,
    PRICE,
    QUANTITY,
    SIDE,
    SLIP,
    SLOT,
    SPLIT_ACTION,
    SPLIT_RATIO,
    SYMBOL,
    Actions,
)

# Columns of the costs of a symbol, in cash.
FEES, SLIPPAGE, BORROW = 0, 1, 2


class Replay(NamedTuple):
    """What a result keeps so that it can be taken apart later."""

    market: Market
    sessions: Sessions | None
    actions: Actions
    venue: VenueRow


class Contributions(NamedTuple):
    """profit: net, in cash, [slots, symbols]. costs: fees, slippage and borrow, [symbols, 3]."""

    profit: Floats
    costs: Floats


def contributions(replay: Replay, changes: Floats) -> Contributions:
    """Take a run apart. changes: its log."""
    slots, symbols = replay.market.close.shape
    made = Contributions(np.zeros((slots, symbols)), np.zeros((symbols, 3)))
    _replayed(replay.market, replay.actions, replay.venue.borrow_rate, changes, made.profit, made.costs)
    return made


@entry
def _replayed(market: Market, actions: Actions, borrow_rate: Floats, changes: Floats, profit: Floats, costs: Floats) -> None:  # noqa: C901  # one pass over a row: to cut it costs the kernel its speed
    slots, symbols = market.close.shape
    position, mark = np.zeros(symbols), np.zeros(symbols)
    action, change = 0, 0
    for slot in range(slots):
        for j in range(symbols):
            profit[slot, j] = -position[j] * mark[j]
            if position[j] < 0.0 and borrow_rate[j] > 0.0:
                due = -position[j] * mark[j] * borrow_rate[j] * market.elapsed[slot] / SECONDS_A_YEAR
                profit[slot, j] -= due
                costs[j, BORROW] += due
        while action < actions.slot.size and actions.slot[action] == slot:
            j, value = actions.symbol[action], actions.value[action]
            if actions.kind[action] == DIVIDEND_ACTION:
                profit[slot, j] += position[j] * value
                mark[j] -= value
            elif actions.kind[action] == SPLIT_ACTION:
                mark[j] /= value
            elif mark[j] > 0.0 and market.open[slot, j] > 0.0:
                mark[j] = market.open[slot, j]
            action += 1
        while change < changes.shape[0] and changes[change, SLOT] == slot:
            j = int(changes[change, SYMBOL])
            if changes[change, KIND] == SPLIT_RATIO:
                position[j] *= changes[change, PRICE]
            else:
                bought = changes[change, SIDE] * changes[change, QUANTITY]
                profit[slot, j] -= bought * changes[change, PRICE] + changes[change, FEE]
                costs[j, FEES] += changes[change, FEE]
                costs[j, SLIPPAGE] += changes[change, SLIP]
                position[j] = settled(position[j], bought)
            change += 1
        for j in range(symbols):
            if market.close[slot, j] == market.close[slot, j]:
                mark[j] = market.close[slot, j]
            profit[slot, j] += position[j] * mark[j]
