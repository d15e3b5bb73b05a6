"""The decision kernel: one `step(account, row)` over a row of symbols; a backtest is the same step scanned over time.

In one slot of time, in this order:
1. borrow is paid for shorts held since the slot before;
2. corporate actions whose ex time is this slot: dividends pay (shorts owe), splits change quantity, mark and waiting
   orders;
3. the orders decided one slot earlier fill at this open (`matching`), or are cancelled;
4. positions are marked at the close; symbols that are gone are settled at their last close;
5. the drawdown policy looks at equity, and the targets of this slot become the orders of the next.

`decide_row` is the part that a live session shares. Accounts are rows of arrays that a step updates in place; nothing
else is touched.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import kernel
from tidemill.matching.kernel import FEE as FILL_FEE
from tidemill.matching.kernel import NO_BAR, OUTCOMES, match_row
from tidemill.matching.kernel import PRICE as FILL_PRICE
from tidemill.matching.kernel import QUANTITY as FILL_QUANTITY
from tidemill.matching.kernel import SLIPPAGE as FILL_SLIPPAGE
from tidemill.matching.rules import SECONDS_A_YEAR, Floats, MatchingRules, VenueRow
from tidemill.risk.drawdown import FLATTEN, NORMAL, REDUCE, DrawdownPolicy, DrawdownState, drawdown_step
from tidemill.risk.limits import Limits, clip_position, gross_scale

Indices = NDArray[np.int64]

# Cells of Account.totals, in cash of the account.
CASH, FEES, SLIPPAGE, BORROW, DIVIDENDS, TRADED = 0, 1, 2, 3, 4, 5
# Cells of Account.clips: how often a target was cut, and why.
SHORT, POSITION, GROSS, DRAWDOWN, UNPRICED = 0, 1, 2, 3, 4
CLIPS = ("short", "position", "gross", "drawdown", "unpriced")
_DUST = 1e-9  # of equity: a smaller change is rounding, not an order


class Account(NamedTuple):
    """State of an account over a row of symbols. position: units. mark: last close, 0 for none. seen: slot of the last
    bar, −1 for none.

    order_quantity, order_amount, orders: what waits for the next open (see `matching.kernel`), `orders[:waiting[0]]`
    in symbol order.
    """

    totals: Floats
    position: Floats
    mark: Floats
    seen: Indices
    order_quantity: Floats
    order_amount: Floats
    orders: Indices
    waiting: Indices
    outcomes: Indices
    clips: Indices
    short_clipped: NDArray[np.bool_]
    carry: Floats  # dividends less borrow of each symbol since its trade began


class Row(NamedTuple):
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
        outcomes=np.zeros(len(OUTCOMES), np.int64),
        clips=np.zeros(len(CLIPS), np.int64),
        short_clipped=np.zeros(symbols, np.bool_),
        carry=carry,
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
    """`ratio` new shares for one old: quantity, mark and waiting order change, value does not."""
    account.position[j] *= ratio
    account.order_quantity[j] *= ratio
    account.mark[j] /= ratio


@kernel
def pay_dividend(account: Account, j: int, cash: float) -> None:
    """`cash` for each share held before this open; a short owes it. The mark falls with it, so nothing is counted twice."""
    paid = account.position[j] * cash
    account.totals[CASH] += paid
    account.totals[DIVIDENDS] += paid
    account.carry[j] += paid
    account.mark[j] -= cash


@kernel
def fill_orders(account: Account, row: Row, terms: Terms, fills: Floats) -> int:
    """Match what waits against this slot and forget it; returns the number of fills."""
    count = account.waiting[0]
    if count == 0:
        return 0
    made = 0
    if row.contiguous:
        cash, made = match_row(
            account.orders, count, account.order_quantity, account.order_amount, account.position, account.totals[CASH],
            row.open, row.volume, terms.venue, terms.rules, fills, account.outcomes,
        )  # fmt: skip
        account.totals[CASH] = cash
    else:
        account.outcomes[NO_BAR] += count
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
def mark_row(account: Account, row: Row, slot: int) -> tuple[float, float, float]:
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
    """Turn the position of a symbol that is gone into cash at its last close, without fee; returns the quantity sold."""
    quantity = float(account.position[j])
    account.totals[CASH] += quantity * account.mark[j]
    account.position[j] = 0.0
    return quantity


@kernel
def _asked(weight: float, held: float, resize: bool) -> bool:
    """Whether a target asks for anything. Bits instead of branches: which symbols are held is a pattern that no
    processor predicts.
    """
    if resize:
        return (weight == weight) & ((weight != 0.0) | (held != 0.0))
    opens_or_closes = ((weight > 0.0) != (held > 0.0)) | ((weight < 0.0) != (held < 0.0))
    return (weight == weight) & opens_or_closes


@kernel
def _guarded(target: float, current: float, action: int) -> float:
    """`target` under a drawdown action: nothing is added; FLATTEN wants nothing at all."""
    if action == FLATTEN or target * current < 0.0:
        return 0.0
    if abs(target) > abs(current):
        return current
    return target


@kernel
def _wanted(
    weight: float, current: float, equity: float, can_short: bool, action: int, squeeze: float, limits: Limits
) -> tuple[float, int]:
    """Target value of one symbol in cash after every limit that looks at it alone, and the clips as bits `1 << CLIP`."""
    clips, funds = 0, max(equity, 0.0)
    if weight < 0.0 and not can_short:
        clips, weight = 1 << SHORT, 0.0
    target = current
    if not math.isnan(weight):
        asked = weight * funds
        target = clip_position(asked, funds, limits)
        if abs(target) < abs(asked) * (1.0 - _DUST):
            clips |= 1 << POSITION
    if action == NORMAL:
        return target, clips
    held_back = _guarded(target, current, action)
    if action == REDUCE and abs(held_back) > squeeze * abs(current):
        held_back = squeeze * current
    if held_back != target:
        clips |= 1 << DRAWDOWN
    return held_back, clips


@kernel
def _count_clips(account: Account, j: int, clips: int) -> None:
    for kind in range(len(CLIPS)):
        if clips & (1 << kind):
            account.clips[kind] += 1
    if clips & (1 << SHORT):
        account.short_clipped[j] = True


@kernel
def _order(target: float, held: float, mark: float, equity: float) -> tuple[float, float]:
    """Quantity and amount of the order that leads from `held` units to `target` in cash; both 0 if there is nothing to do."""
    if target == 0.0:
        return -held, 0.0
    change = target - held * mark
    if abs(change) <= _DUST * abs(equity):
        return 0.0, 0.0
    if change < 0.0:
        return change / mark, 0.0
    if held < 0.0:
        return min(change / mark, -held), max(target, 0.0)
    return 0.0, change


@kernel
def _kept(target: float, current: float) -> float:
    """The part of the position that stays when it becomes `target`."""
    if target * current <= 0.0:
        return 0.0
    return target if abs(target) < abs(current) else current


@kernel
def decide_row(
    account: Account, target: Floats, equity: float, gross: float, action: int, gross_cap: float, terms: Terms, wanted: Floats
) -> int:
    """Turn target weights into the orders of the next slot; returns how many.

    target: weight of equity for each symbol, NaN to leave it alone. action, gross_cap: the drawdown level in force and
    its cap. wanted: a buffer. Exposure that would pass the gross limit is scaled down together, reductions never.
    """
    position, marks, orders, can_short = account.position, account.mark, account.orders, terms.venue.can_short
    squeeze = min(gross_cap / gross, 1.0) if gross > 0.0 else 1.0
    forced = action == FLATTEN or (action == REDUCE and squeeze < 1.0 - _DUST)
    count = 0
    kept, added = gross, 0.0
    for j in range(target.size):
        weight, held = target[j], position[j]
        if not (_asked(weight, held, terms.resize) or (forced and held != 0.0)):
            continue
        if not marks[j] > 0.0:
            account.clips[UNPRICED] += 1
            continue
        current = held * marks[j]
        value, clips = _wanted(weight, current, equity, can_short[j], action, squeeze, terms.limits)
        if clips:
            _count_clips(account, j, clips)
        keeps = abs(_kept(value, current))
        kept += keeps - abs(current)
        added += abs(value) - keeps
        wanted[j] = value
        orders[count] = j
        count += 1
    return _write_orders(account, count, gross_scale(kept, added, equity, terms.limits), equity, wanted)


@kernel
def _write_orders(account: Account, count: int, scale: float, equity: float, wanted: Floats) -> int:
    position, marks, orders = account.position, account.mark, account.orders
    quantities, amounts = account.order_quantity, account.order_amount
    written = 0
    for k in range(count):
        j = orders[k]
        target, held = wanted[j], position[j]
        if scale < 1.0:
            keeps = _kept(target, held * marks[j])
            if target != keeps:
                account.clips[GROSS] += 1
            target = keeps + (target - keeps) * scale
        quantity, amount = _order(target, held, marks[j], equity)
        if quantity != 0.0 or amount > 0.0:
            quantities[j], amounts[j] = quantity, amount
            orders[written] = j
            written += 1
    account.waiting[0] = written
    return written


@kernel
def guard(state: DrawdownState, equity: float, gross: float, terms: Terms) -> DrawdownState:
    """The drawdown policy's state after this close; unchanged where it is switched off."""
    if not terms.guarded:
        return state
    return drawdown_step(state, equity, gross, 0.0, False, terms.policy)
