"""The kernel's step scanned over time. Compiled; `backtest.backtest` is the door for frames."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.backtest.sessions import Sessions
from tidemill.compiled import entry, kernel
from tidemill.matching.kernel import settled
from tidemill.matching.rules import Floats
from tidemill.risk.drawdown import DrawdownState, drawdown_from
from tidemill.trading.account import Account, AccountRow, Indices, Terms
from tidemill.trading.slot import (
    KIND,
    PRICE,
    QUANTITY,
    SIDE,
    SLOT,
    SPLIT_RATIO,
    SYMBOL,
    Actions,
    Buffers,
    Clock,
    Log,
    new_log,
    step_slot,
)
from tidemill.trading.trades import EXIT_PRICE, HELD, RECEIVED, write_trade


class Market(NamedTuple):
    """Panel of float64 [slots, symbols]; NaN where a symbol has no bar, and in `target` where nothing is asked.
    elapsed: seconds [slots].
    """

    open: Floats
    close: Floats
    volume: Floats
    target: Floats
    elapsed: Floats
    contiguous: NDArray[np.bool_]
    delisted: Indices  # [symbols] slot from which a symbol is known to be gone


class Outputs(NamedTuple):
    """One cell per slot, at its close: equity, gross and net exposure, costs of the slot in cash, drawdown level in force, and
    what is lost from the high-water mark as a share of it (0 where no policy is in force).
    """

    equity: Floats
    gross: Floats
    net: Floats
    costs: Floats
    level: Indices
    drawdown: Floats


def new_outputs(slots: int) -> Outputs:
    equity, gross, net, costs, drawdown = (np.empty(slots) for _ in range(5))
    return Outputs(equity, gross, net, costs, np.zeros(slots, np.int64), drawdown)


def larger(log: Log) -> Log:
    """The same rows with room for twice as many."""
    bigger = new_log(2 * len(log.changes))
    for old, new, used in zip(log[:2], bigger[:2], log.used, strict=True):
        new[:used] = old[:used]
    bigger.used[:] = log.used
    return bigger


@kernel
def clock_at(sessions: Sessions, slot: int) -> Clock:
    return Clock(sessions.opens[slot], sessions.closes[slot], sessions.due[slot], sessions.ordinal[slot], sessions.group)


@entry
def scan(
    start: int,
    market: Market,
    sessions: Sessions | None,
    actions: Actions,
    terms: Terms,
    account: Account,
    book: Floats,
    state: DrawdownState,
    buffers: Buffers,
    outputs: Outputs,
    log: Log,
) -> tuple[int, DrawdownState]:
    """Run the account through the slots of the market from `start` on; everything but the market is updated in place.

    sessions: None where all symbols follow one calendar, which is compiled apart.

    Returns the slot at which it stopped: the end, or the first slot whose changes might not fit into the log any more.
    """
    slots, symbols = market.open.shape
    room = log.changes.shape[0] - 2 * symbols
    at = int(np.searchsorted(actions.slot, start))
    slot = start
    while slot < slots:
        ahead = at
        while ahead < actions.slot.size and actions.slot[ahead] == slot:
            ahead += 1
        if log.used[0] + 2 * (ahead - at) > room:
            break
        row = AccountRow(
            market.open[slot],
            market.close[slot],
            market.volume[slot],
            market.target[slot],
            market.elapsed[slot],
            market.contiguous[slot],
        )
        clock = None if sessions is None else clock_at(sessions, slot)
        at, state, marked = step_slot(
            slot, row, clock, actions, at, market.delisted, slot, slot == slots - 1, terms, account, book, state, buffers, log
        )
        outputs.equity[slot], outputs.gross[slot], outputs.net[slot] = marked.equity, marked.gross, marked.net
        outputs.level[slot], outputs.costs[slot] = state.action, marked.costs
        outputs.drawdown[slot] = drawdown_from(state.high_water, marked.equity) if terms.guarded else 0.0
        slot += 1
    return slot, state


@entry
def open_trades(account: Account, book: Floats, slot: int, rows: Floats) -> int:
    """Write the round trips that are still open into `rows` and return how many.

    Their profit is what it would be at the last mark, without the costs of closing.
    """
    count = 0
    for j in range(book.shape[0]):
        if book[j, HELD] != 0.0:
            worth = abs(book[j, HELD]) * account.mark[j]
            book[j, RECEIVED] += worth
            write_trade(book, j, slot, account.carry[j], rows, count)
            rows[count, EXIT_PRICE] = np.nan
            book[j, RECEIVED] -= worth
            count += 1
    return count


@entry
def holdings(changes: Floats, held: Floats) -> None:
    """Replay the log of changes into `held`: units [slots, symbols] at each close, zero to begin with."""
    at = 0
    for slot in range(held.shape[0]):
        if slot > 0:
            for j in range(held.shape[1]):
                held[slot, j] = held[slot - 1, j]
        while at < changes.shape[0] and changes[at, SLOT] == slot:
            j = int(changes[at, SYMBOL])
            if changes[at, KIND] == SPLIT_RATIO:
                held[slot, j] *= changes[at, PRICE]
            else:
                held[slot, j] = settled(held[slot, j], changes[at, SIDE] * changes[at, QUANTITY])
            at += 1
