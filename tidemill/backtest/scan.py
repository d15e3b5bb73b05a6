"""The kernel's step scanned over time, with its logs. Compiled; `backtest.backtest` is the door for frames."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.backtest.sessions import Sessions
from tidemill.backtest.trades import EXIT_PRICE, HELD, RECEIVED, TRADE_COLUMNS, book_fill, book_split, write_trade
from tidemill.compiled import entry, kernel
from tidemill.matching.kernel import FEE as FILL_FEE
from tidemill.matching.kernel import FILL_COLUMNS, settled, whole_lots
from tidemill.matching.kernel import PRICE as FILL_PRICE
from tidemill.matching.kernel import QUANTITY as FILL_QUANTITY
from tidemill.matching.kernel import SIDE as FILL_SIDE
from tidemill.matching.kernel import SYMBOL as FILL_SYMBOL
from tidemill.matching.rules import Floats
from tidemill.risk.drawdown import DrawdownState, drawdown_from
from tidemill.trading.account import (
    BORROW,
    CASH,
    FEES,
    SLIPPAGE,
    Account,
    AccountRow,
    Indices,
    Terms,
    charge_borrow,
    fill_due,
    fill_orders,
    mark_row,
    pay_dividend,
    settle,
    split,
)
from tidemill.trading.decision import Apart, decide_apart, decide_row, guard

# Kinds of corporate action, in the order in which they apply within one slot: a dividend is per share held before the split.
DIVIDEND_ACTION, SPLIT_ACTION, SUSPECTED_ACTION = 0, 1, 2
# Columns (a slot, then those of a fill, then the kind) and kinds of the log of everything that changed a position.
LOG_COLUMNS = 8
SLOT, SYMBOL, SIDE, QUANTITY, PRICE, FEE, SLIP, KIND = range(LOG_COLUMNS)
ORDER_FILL, SETTLEMENT, SPLIT_RATIO = 0.0, 1.0, 2.0


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


class Actions(NamedTuple):
    """Corporate actions sorted by (slot, symbol, kind)."""

    slot: Indices
    symbol: Indices
    kind: Indices
    value: Floats


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


class Log(NamedTuple):
    """Rows [size, columns] of what changed positions, and of ended round trips; `used` counts the rows of each."""

    changes: Floats
    trades: Floats
    used: Indices


def new_outputs(slots: int) -> Outputs:
    equity, gross, net, costs, drawdown = (np.empty(slots) for _ in range(5))
    return Outputs(equity, gross, net, costs, np.zeros(slots, np.int64), drawdown)


def new_log(size: int) -> Log:
    return Log(np.empty((size, LOG_COLUMNS)), np.empty((size, TRADE_COLUMNS)), np.zeros(2, np.int64))


def larger(log: Log) -> Log:
    """The same rows with room for twice as many."""
    bigger = new_log(2 * len(log.changes))
    for old, new, used in zip(log[:2], bigger[:2], log.used, strict=True):
        new[:used] = old[:used]
    bigger.used[:] = log.used
    return bigger


@kernel
def _log_change(
    log: Log, slot: int, j: int, side: float, quantity: float, price: float, fee: float, slip: float, kind: float
) -> None:
    rows, at = log.changes, log.used[0]
    rows[at, SLOT], rows[at, SYMBOL], rows[at, SIDE], rows[at, QUANTITY] = slot, j, side, quantity
    rows[at, PRICE], rows[at, FEE], rows[at, SLIP], rows[at, KIND] = price, fee, slip, kind
    log.used[0] += 1


@kernel
def _enter(
    log: Log, book: Floats, account: Account, slot: int, j: int, side: float, quantity: float, price: float, fee: float
) -> None:
    """Write a change of position into the trade book."""
    at = log.used[1]
    if book_fill(book, j, slot, side, quantity, price, fee, account.position[j], account.carry, log.trades, at):
        log.used[1] += 1


@kernel
def _apply_split(account: Account, book: Floats, log: Log, slot: int, j: int, ratio: float, lot: float) -> None:
    """A split; a fraction of a lot that it leaves is paid out at the mark, as brokers do."""
    split(account, j, ratio)
    book_split(book, j, ratio)
    held = account.position[j]
    if held == 0.0:
        return
    _log_change(log, slot, j, 0.0, 0.0, ratio, 0.0, 0.0, SPLIT_RATIO)
    rest = abs(held) - whole_lots(abs(held), lot)
    if lot <= 0.0 or rest <= 1e-9 * abs(held):
        return
    side = -1.0 if held > 0.0 else 1.0
    account.position[j] = held + side * rest
    account.totals[CASH] -= side * rest * account.mark[j]
    _log_change(log, slot, j, side, rest, account.mark[j], 0.0, 0.0, SETTLEMENT)
    _enter(log, book, account, slot, j, side, rest, account.mark[j], 0.0)


@kernel
def _apply_actions(
    account: Account, book: Floats, log: Log, slot: int, at: int, row: AccountRow, actions: Actions, lots: Floats
) -> int:
    """Apply the actions of this slot from index `at` on; returns the index of the next one."""
    while at < actions.slot.size and actions.slot[at] == slot:
        j, value = actions.symbol[at], actions.value[at]
        if actions.kind[at] == DIVIDEND_ACTION:
            pay_dividend(account, j, value)
        elif actions.kind[at] == SPLIT_ACTION:
            _apply_split(account, book, log, slot, j, value, lots[j])
        elif account.mark[j] > 0.0 and row.open[j] > 0.0:
            # A suspected action: whatever happened between the last close and this open is treated as a split.
            _apply_split(account, book, log, slot, j, account.mark[j] / row.open[j], 0.0)
        at += 1
    return at


@kernel
def _absent(account: Account, sessions: Sessions | None, slot: int, j: int) -> int:
    """How many slots of its own have passed without a bar of this symbol."""
    seen = account.seen[j]
    if sessions is None:
        return int(slot - seen)
    return int(sessions.ordinal[slot, sessions.group[j]] - sessions.ordinal[seen, sessions.group[j]])


@kernel
def _settle_gone(
    account: Account,
    book: Floats,
    log: Log,
    slot: int,
    row: AccountRow,
    delisted: Indices,
    sessions: Sessions | None,
    dead_after: int,
    last: bool,
) -> None:
    """Settle what has no bar and is known to be gone, or was absent for `dead_after` slots of its own, or is absent at the end
    of the data.
    """
    for j in range(account.position.size):
        if row.close[j] == row.close[j] or account.position[j] == 0.0:
            continue
        absent = _absent(account, sessions, slot, j)
        if (last and absent > 0) or slot >= delisted[j] or absent >= dead_after:
            quantity, when = settle(account, j), account.seen[j]
            side = -1.0 if quantity > 0.0 else 1.0
            _log_change(log, slot, j, side, abs(quantity), account.mark[j], 0.0, 0.0, SETTLEMENT)
            _enter(log, book, account, when, j, side, abs(quantity), account.mark[j], 0.0)


@kernel
def _log_fills(account: Account, book: Floats, log: Log, slot: int, fills: Floats, made: int) -> None:
    changes, trades, used, position, carry = log.changes, log.trades, log.used, account.position, account.carry
    for k in range(made):
        at, j = used[0], int(fills[k, FILL_SYMBOL])
        changes[at, SLOT], changes[at, KIND] = slot, ORDER_FILL
        for column in range(FILL_COLUMNS):
            changes[at, SYMBOL + column] = fills[k, column]
        used[0] = at + 1
        side, quantity, price, fee = fills[k, FILL_SIDE], fills[k, FILL_QUANTITY], fills[k, FILL_PRICE], fills[k, FILL_FEE]
        if book_fill(book, j, slot, side, quantity, price, fee, position[j], carry, trades, used[1]):
            used[1] += 1


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
    fills: Floats,
    wanted: Floats,
    outputs: Outputs,
    log: Log,
) -> tuple[int, DrawdownState]:
    """Run the account through the slots of the market from `start` on; everything but the market is updated in place.

    sessions: None where all symbols follow one calendar, which is compiled apart: nothing has to be looked up then.

    Returns the slot at which it stopped: the end, or the first slot whose changes might not fit into the log any more.
    """
    slots, symbols = market.open.shape
    room = log.changes.shape[0] - 2 * symbols
    at = int(np.searchsorted(actions.slot, start))
    totals = account.totals
    buffers = Apart(np.empty(symbols), np.empty(symbols))
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
        before = totals[FEES] + totals[SLIPPAGE] + totals[BORROW]
        if terms.borrows:
            charge_borrow(account, terms.venue, row.elapsed)
        at = _apply_actions(account, book, log, slot, at, row, actions, terms.venue.lot)
        if sessions is None:
            made = fill_orders(account, row, terms, fills)
        else:
            made = fill_due(account, row, terms, fills, sessions.opens[slot])
        _log_fills(account, book, log, slot, fills, made)
        _settle_gone(account, book, log, slot, row, market.delisted, sessions, terms.dead_after, slot == slots - 1)
        equity, gross, net = mark_row(account, row, slot)
        state = guard(state, equity, gross, terms)
        outputs.equity[slot], outputs.gross[slot], outputs.net[slot], outputs.level[slot] = equity, gross, net, state.action
        outputs.drawdown[slot] = drawdown_from(state.high_water, equity) if terms.guarded else 0.0
        outputs.costs[slot] = totals[FEES] + totals[SLIPPAGE] + totals[BORROW] - before
        if sessions is None:
            decide_row(account, row.target, equity, gross, net, state.action, state.gross_cap, terms, wanted)
        else:
            decide_apart(
                account, row.target, equity, gross, net, state.action, state.gross_cap, terms, wanted,
                sessions.closes[slot], sessions.due[slot], sessions.group, buffers,
            )  # fmt: skip
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
