"""An account over a row of symbols: what it holds, and what a slot of time does to it before anything is decided."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import kernel
from tidemill.matching.collar import COLLAR_COLUMNS, REFERENCE, collared, forget_cancelled, keep_to_collar
from tidemill.matching.kernel import FEE as FILL_FEE
from tidemill.matching.kernel import NO_BAR, OUTCOMES, match_row
from tidemill.matching.kernel import PRICE as FILL_PRICE
from tidemill.matching.kernel import QUANTITY as FILL_QUANTITY
from tidemill.matching.kernel import SLIPPAGE as FILL_SLIPPAGE
from tidemill.matching.rules import SECONDS_A_YEAR, Floats, MatchingRules, VenueRow
from tidemill.risk.drawdown import DrawdownPolicy
from tidemill.risk.limits import Limits

Indices = NDArray[np.int64]

# Cells of Account.totals, in cash of the account.
CASH, FEES, SLIPPAGE, BORROW, DIVIDENDS, TRADED = 0, 1, 2, 3, 4, 5
# Cells of Account.clips: how often a target was cut, and why.
SHORT, POSITION, GROSS, DRAWDOWN, UNPRICED, NET = 0, 1, 2, 3, 4, 5
CLIPS = ("short", "position", "gross", "drawdown", "unpriced", "net")


class Account(NamedTuple):
    """State of an account over a row of symbols. position: units. mark: last close, 0 for none. seen: slot of the last
    bar, −1 for none.

    order_quantity, order_amount, orders: what waits for the next open (see `matching.kernel`), `orders[:waiting[0]]`
    in symbol order. due: when the slot opens for which each of them waits (epoch microseconds), where symbols follow calendars
    of their own; elsewhere all wait for the next slot. collar: of each symbol, what `matching.collar` looks at.
    """

    totals: Floats
    position: Floats
    mark: Floats
    seen: Indices
    order_quantity: Floats
    order_amount: Floats
    orders: Indices
    waiting: Indices
    due: Indices
    collar: Floats
    outcomes: Indices
    clips: Indices
    short_clipped: NDArray[np.bool_]
    carry: Floats  # dividends less borrow of each symbol since its trade began
    own_seen: Indices  # the same as `seen`, in slots of its own calendar, where symbols follow calendars of their own


class AccountRow(NamedTuple):
    """One slot of the market. NaN in open and close where a symbol has no bar; NaN in target where nothing is asked of it."""

    open: Floats
    close: Floats
    volume: Floats
    target: Floats
    elapsed: float  # seconds since the slot before
    contiguous: bool  # False: slots are missing before this one, so waiting orders have passed


class Terms(NamedTuple):
    """What does not change from slot to slot. resize False: a target only opens, closes or turns a position, and
    never trims it.
    """

    venue: VenueRow
    rules: MatchingRules
    limits: Limits
    policy: DrawdownPolicy
    guarded: bool  # the drawdown policy is switched on
    borrows: bool  # some instrument charges for shorts
    resize: bool
    dead_after: int


def new_account(symbols: int, capital: float) -> Account:
    """An account that holds nothing but `capital`."""
    totals = np.zeros(6)
    totals[CASH] = capital
    position, order_quantity, order_amount, carry = (np.zeros(symbols) for _ in range(4))
    return Account(
        totals=totals,
        position=position,
        mark=np.zeros(symbols),
        seen=np.full(symbols, -1, np.int64),
        order_quantity=order_quantity,
        order_amount=order_amount,
        orders=np.zeros(symbols, np.int64),
        waiting=np.zeros(1, np.int64),
        due=np.zeros(symbols, np.int64),
        collar=np.zeros((symbols, COLLAR_COLUMNS)),
        outcomes=np.zeros(len(OUTCOMES), np.int64),
        clips=np.zeros(len(CLIPS), np.int64),
        short_clipped=np.zeros(symbols, np.bool_),
        carry=carry,
        own_seen=np.full(symbols, -1, np.int64),
    )


@kernel
def charge_borrow(account: Account, venue: VenueRow, elapsed: float) -> float:
    """Pay for shorts held over `elapsed` seconds, at the last mark; returns the cash paid."""
    paid = 0.0
    for j in range(account.position.size):
        if account.position[j] < 0.0 and venue.borrow_rate[j] > 0.0:
            due = -account.position[j] * account.mark[j] * venue.borrow_rate[j] * elapsed / SECONDS_A_YEAR
            account.carry[j] -= due
            paid += due
    account.totals[CASH] -= paid
    account.totals[BORROW] += paid
    return paid


@kernel
def split(account: Account, j: int, ratio: float) -> None:
    """`ratio` new shares for one old: quantity, mark, waiting order and its reference change, value does not."""
    account.position[j] *= ratio
    account.order_quantity[j] *= ratio
    account.mark[j] /= ratio
    account.collar[j, REFERENCE] /= ratio


@kernel
def pay_dividend(account: Account, j: int, cash: float) -> None:
    """`cash` for each share held before this open; a short owes it. The mark falls with it, so nothing is counted twice, and
    so does the reference of what waits.
    """
    paid = account.position[j] * cash
    account.totals[CASH] += paid
    account.totals[DIVIDENDS] += paid
    account.carry[j] += paid
    account.mark[j] -= cash
    account.collar[j, REFERENCE] -= cash


@kernel
def fill_orders(account: Account, row: AccountRow, terms: Terms, fills: Floats) -> int:
    """Match what waits against this slot and forget it; returns the number of fills."""
    count = account.waiting[0]
    if count == 0:
        return 0
    made = 0
    if row.contiguous:
        if collared(terms.rules):
            count = keep_to_collar(
                account.orders, count, account.order_quantity, account.order_amount, account.position, account.collar,
                row.open, row.volume, terms.venue, terms.rules, account.outcomes,
            )  # fmt: skip
        cash, made = match_row(
            account.orders, count, account.order_quantity, account.order_amount, account.position, account.totals[CASH],
            row.open, row.volume, terms.venue, terms.rules, fills, account.outcomes,
        )  # fmt: skip
        account.totals[CASH] = cash
    else:
        account.outcomes[NO_BAR] += count
    if collared(terms.rules):
        forget_cancelled(account.collar, fills, made)
    for k in range(made):
        account.totals[FEES] += fills[k, FILL_FEE]
        account.totals[SLIPPAGE] += fills[k, FILL_SLIPPAGE]
        account.totals[TRADED] += fills[k, FILL_QUANTITY] * fills[k, FILL_PRICE]
    for k in range(count):
        account.order_quantity[account.orders[k]] = 0.0
        account.order_amount[account.orders[k]] = 0.0
    account.waiting[0] = 0
    return made


@kernel
def waits(account: Account, j: int) -> bool:
    """Whether an order of this symbol waits."""
    return bool(account.order_quantity[j] != 0.0 or account.order_amount[j] > 0.0)


@kernel
def withdraw(account: Account, j: int) -> None:
    """Forget the order of this symbol; it stays in the list of those that wait until that is made anew."""
    account.order_quantity[j] = 0.0
    account.order_amount[j] = 0.0


@kernel
def list_orders(account: Account) -> int:
    """Make the list of what waits anew; returns its length."""
    count = 0
    for j in range(account.position.size):
        if waits(account, j):
            account.orders[count] = j
            count += 1
    account.waiting[0] = count
    return count


@kernel
def fill_due(account: Account, row: AccountRow, terms: Terms, fills: Floats, opens: int) -> int:
    """`fill_orders` where symbols follow calendars of their own: an order waits for its symbol's next slot.

    opens: when this slot does. What was due earlier has passed: that slot never came.
    """
    orders, due = account.orders, 0
    for k in range(account.waiting[0]):
        j = orders[k]
        if account.due[j] < opens:
            withdraw(account, j)
            account.outcomes[NO_BAR] += 1
        elif account.due[j] == opens:
            orders[due] = j
            due += 1
    account.waiting[0] = due
    made = fill_orders(account, row, terms, fills)
    list_orders(account)
    return made


@kernel
def mark_row(account: Account, row: AccountRow, slot: int) -> tuple[float, float, float]:
    """Mark at this close, or the last known; returns equity, gross and net exposure in cash."""
    gross = net = 0.0
    for j in range(account.position.size):
        close = row.close[j]
        if close == close:
            account.mark[j] = close
            account.seen[j] = slot
        held = account.position[j]
        value = held * account.mark[j]
        net += value
        gross += abs(value)
    return account.totals[CASH] + net, gross, net


@kernel
def settle(account: Account, j: int) -> float:
    """Turn the position of a symbol that is gone into cash at its last close, without fee; returns the quantity sold. What
    waits for it is forgotten.
    """
    quantity = float(account.position[j])
    withdraw(account, j)
    account.totals[CASH] += quantity * account.mark[j]
    account.position[j] = 0.0
    return quantity
