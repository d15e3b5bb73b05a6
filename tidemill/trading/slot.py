"""What one slot of time does to an account, from its open to the orders that it ends with; see `decision` for the order of it.

A backtest scans `step_slot`, and `trading.ordering` steps it: the same compiled code.
"""

from typing import NamedTuple

import numpy as np

from tidemill.compiled import kernel
from tidemill.matching.kernel import FEE as FILL_FEE
from tidemill.matching.kernel import FILL_COLUMNS, fill_buffer, whole_lots
from tidemill.matching.kernel import PRICE as FILL_PRICE
from tidemill.matching.kernel import QUANTITY as FILL_QUANTITY
from tidemill.matching.kernel import SIDE as FILL_SIDE
from tidemill.matching.kernel import SYMBOL as FILL_SYMBOL
from tidemill.matching.rules import Floats
from tidemill.risk.drawdown import DrawdownState
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
from tidemill.trading.trades import TRADE_COLUMNS, book_fill, book_split

# Kinds of corporate action, in the order in which they apply within one slot: a dividend is per share held before the split.
DIVIDEND_ACTION, SPLIT_ACTION, SUSPECTED_ACTION = 0, 1, 2
# Columns (a slot, then those of a fill, then the kind) and kinds of the log of everything that changed a position.
LOG_COLUMNS = 8
SLOT, SYMBOL, SIDE, QUANTITY, PRICE, FEE, SLIP, KIND = range(LOG_COLUMNS)
ORDER_FILL, SETTLEMENT, SPLIT_RATIO = 0.0, 1.0, 2.0


class Actions(NamedTuple):
    """Corporate actions sorted by (slot, symbol, kind)."""

    slot: Indices
    symbol: Indices
    kind: Indices
    value: Floats


class Log(NamedTuple):
    """Rows [size, columns] of what changed positions, and of ended round trips; `used` counts the rows of each."""

    changes: Floats
    trades: Floats
    used: Indices


class Clock(NamedTuple):
    """One slot where symbols follow calendars of their own. opens, closes: epoch microseconds; it is decided at `closes`.

    due: [calendars] when the slot opens for which an order waits that is decided here. ordinal: [calendars] how many slots of
    each there were up to here. group: [symbols] which calendar.
    """

    opens: int
    closes: int
    due: Indices
    ordinal: Indices
    group: Indices


class Buffers(NamedTuple):
    """Room for a step over so many symbols; nothing in it outlasts the step."""

    fills: Floats
    wanted: Floats
    apart: Apart


class Marked(NamedTuple):
    """An account at a close: in cash; costs: of the slot."""

    equity: float
    gross: float
    net: float
    costs: float


def new_log(size: int) -> Log:
    return Log(np.empty((size, LOG_COLUMNS)), np.empty((size, TRADE_COLUMNS)), np.zeros(2, np.int64))


def new_buffers(symbols: int) -> Buffers:
    return Buffers(fill_buffer(symbols), np.zeros(symbols), Apart(np.empty(symbols), np.empty(symbols)))


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
def _absent(account: Account, clock: Clock | None, slot: int, j: int) -> int:
    """How many slots of its own have passed without a bar of this symbol."""
    if clock is None:
        return int(slot - account.seen[j])
    return int(clock.ordinal[clock.group[j]] - account.own_seen[j])


@kernel
def _settle_gone(
    account: Account,
    book: Floats,
    log: Log,
    slot: int,
    row: AccountRow,
    delisted: Indices,
    reached: int,
    clock: Clock | None,
    dead_after: int,
    last: bool,
) -> None:
    """Settle what has no bar and is known to be gone, or was absent for `dead_after` slots of its own, or is absent at the end
    of the data. delisted: from when each symbol is known to be gone, counted as `reached` is.
    """
    for j in range(account.position.size):
        if row.close[j] == row.close[j] or account.position[j] == 0.0:
            continue
        absent = _absent(account, clock, slot, j)
        if (last and absent > 0) or reached >= delisted[j] or absent >= dead_after:
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


@kernel
def _see_own(account: Account, row: AccountRow, clock: Clock) -> None:
    """Note which slot of its own calendar each symbol that has a bar has reached."""
    for j in range(row.close.size):
        if row.close[j] == row.close[j]:
            account.own_seen[j] = clock.ordinal[clock.group[j]]


@kernel
def step_slot(
    slot: int,
    row: AccountRow,
    clock: Clock | None,
    actions: Actions,
    at: int,
    delisted: Indices,
    reached: int,
    last: bool,
    terms: Terms,
    account: Account,
    book: Floats,
    state: DrawdownState,
    buffers: Buffers,
    log: Log,
) -> tuple[int, DrawdownState, Marked]:
    """One slot; account, book and log are updated in place.

    clock: None where all symbols follow one calendar, which is compiled apart: nothing has to be looked up then. at: the first
    of `actions` that may be of this slot; the next one is returned. delisted, reached: see `_settle_gone`. last: the data end
    here.
    """
    totals = account.totals
    before = totals[FEES] + totals[SLIPPAGE] + totals[BORROW]
    if terms.borrows:
        charge_borrow(account, terms.venue, row.elapsed)
    at = _apply_actions(account, book, log, slot, at, row, actions, terms.venue.lot)
    if clock is None:
        made = fill_orders(account, row, terms, buffers.fills)
    else:
        made = fill_due(account, row, terms, buffers.fills, clock.opens)
    _log_fills(account, book, log, slot, buffers.fills, made)
    _settle_gone(account, book, log, slot, row, delisted, reached, clock, terms.dead_after, last)
    equity, gross, net = mark_row(account, row, slot)
    state = guard(state, equity, gross, terms)
    if clock is None:
        decide_row(account, row.target, equity, gross, net, state.action, state.gross_cap, terms, buffers.wanted)
    else:
        _see_own(account, row, clock)
        decide_apart(
            account, row.target, equity, gross, net, state.action, state.gross_cap, terms, buffers.wanted,
            clock.closes, clock.due, clock.group, buffers.apart,
        )  # fmt: skip
    return at, state, Marked(equity, gross, net, totals[FEES] + totals[SLIPPAGE] + totals[BORROW] - before)
