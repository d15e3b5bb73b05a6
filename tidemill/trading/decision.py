"""The decision kernel: one `step(account, row)` over a row of symbols; a backtest is the same step scanned over time.

In one slot of time, in this order:
1. borrow is paid for shorts held since the slot before;
2. corporate actions whose ex time is this slot: dividends pay (shorts owe), splits change quantity, mark and waiting
   orders;
3. the orders decided one slot earlier fill at this open (`matching`), or are cancelled; where symbols follow calendars of
   their own, an order waits for its symbol's next slot, and marks stand still meanwhile;
4. positions are marked at the close; symbols that are gone are settled at their last close;
5. the drawdown policy looks at equity, and the targets of this slot become the orders of the next.

`decide_row` is the part that a live session shares. Accounts are rows of arrays that a step updates in place; nothing
else is touched.
"""

import math
from typing import NamedTuple

from tidemill.compiled import kernel
from tidemill.matching.collar import REFERENCE
from tidemill.matching.rules import Floats
from tidemill.risk.drawdown import FLATTEN, NORMAL, REDUCE, DrawdownState, drawdown_step
from tidemill.risk.limits import Limits, clip_position, gross_scale, net_scale
from tidemill.trading.account import (
    CLIPS,
    DRAWDOWN,
    GROSS,
    NET,
    POSITION,
    SHORT,
    UNPRICED,
    Account,
    Indices,
    Terms,
    list_orders,
    waits,
    withdraw,
)

_DUST = 1e-9  # of equity: a smaller change is rounding, not an order


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
    if held_back != target:  # what is held back is not counted as cut to the size of a position too
        clips = clips & ~(1 << POSITION) | 1 << DRAWDOWN
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
    account: Account, target: Floats, equity: float, gross: float, net: float, action: int, gross_cap: float, terms: Terms,
    wanted: Floats,
) -> int:  # fmt: skip
    """Turn target weights into the orders of the next slot; returns how many.

    target: weight of equity for each symbol, NaN to leave it alone. gross, net: exposure now. action, gross_cap: the drawdown
    level in force and its cap. wanted: a buffer. Exposure that would pass the gross limit is scaled down together, then that of
    the side that would pass the net limit; reductions never.
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
    scale = gross_scale(kept, added, equity, terms.limits)
    if terms.limits.max_net < terms.limits.max_gross:  # else what is added within the gross limit cannot pass it
        _keep_to_net(account, count, scale, net, equity, wanted, terms.limits)
    return _write_orders(account, count, scale, equity, wanted)


@kernel
def _keep_to_net(account: Account, count: int, scale: float, net: float, equity: float, wanted: Floats, limits: Limits) -> None:
    """Shrink in `wanted` what is added to the side that would pass the net limit, once all of it is scaled by `scale`."""
    position, marks, orders, clips = account.position, account.mark, account.orders, account.clips
    long = short = 0.0
    for k in range(count):
        j = orders[k]
        current = position[j] * marks[j]
        keeps = _kept(wanted[j], current)
        net += keeps - current
        long += max(wanted[j] - keeps, 0.0) * scale
        short += max(keeps - wanted[j], 0.0) * scale
    of_long, of_short = net_scale(net, long, short, equity, limits), net_scale(-net, short, long, equity, limits)
    for k in range(count):
        j = orders[k]
        keeps = _kept(wanted[j], position[j] * marks[j])
        own = of_long if wanted[j] > keeps else of_short
        if own < 1.0 and wanted[j] != keeps:
            wanted[j] = keeps + (wanted[j] - keeps) * own
            clips[NET] += 1


@kernel
def _write_orders(account: Account, count: int, scale: float, equity: float, wanted: Floats) -> int:
    position, marks, orders, collar = account.position, account.mark, account.orders, account.collar
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
            quantities[j], amounts[j], collar[j, REFERENCE] = quantity, amount, marks[j]
            orders[written] = j
            written += 1
    account.waiting[0] = written
    return written


@kernel
def _added(account: Account, j: int) -> float:
    """Exposure in cash that the waiting order of a symbol adds."""
    sold_short = max(-account.order_quantity[j] - max(account.position[j], 0.0), 0.0)
    return float(account.order_amount[j] + sold_short * account.mark[j])


@kernel
def _keep_to_reducing(account: Account, j: int) -> None:
    """Take out of the waiting order of a symbol what adds exposure."""
    if _added(account, j) <= 0.0:
        return
    account.order_amount[j] = 0.0
    account.order_quantity[j] = max(account.order_quantity[j], -max(account.position[j], 0.0))
    account.clips[DRAWDOWN] += 1


class Apart(NamedTuple):
    """Buffers of `decide_apart`, a cell for each symbol."""

    asked: Floats
    aside: Floats


@kernel
def decide_apart(
    account: Account, target: Floats, equity: float, gross: float, net: float, action: int, gross_cap: float, terms: Terms,
    wanted: Floats, closes: int, due: Indices, calendar: Indices, buffers: Apart,
) -> int:  # fmt: skip
    """`decide_row` where symbols follow calendars of their own; returns how many orders wait.

    closes: when this is decided. due: when the next slot of each calendar opens for what is decided now. calendar: of each
    symbol, the index into `due`. A decision replaces the order that waits, which counts as done for the gross and the net limit
    as long as it does. An order that fills before this decision could reach the market stays as it is, and its symbol is left
    alone. Under a drawdown action nothing that waits may add.
    """
    committed, leaning, position = 0.0, 0.0, account.position
    asked, aside = buffers
    for j in range(target.size):
        asked[j], aside[j] = target[j], 0.0
        if not waits(account, j):
            continue
        beyond = account.due[j] < closes
        if not beyond and not math.isnan(target[j]):
            withdraw(account, j)
        elif not beyond and action != NORMAL:
            _keep_to_reducing(account, j)
        committed += _added(account, j)
        leaning += account.order_amount[j] + account.order_quantity[j] * account.mark[j]
        if beyond:
            asked[j], aside[j], position[j] = math.nan, position[j], 0.0  # what is not held is not closed either
    count = decide_row(account, asked, equity, gross + committed, net + leaning, action, gross_cap, terms, wanted)
    for j in range(target.size):
        if aside[j] != 0.0:
            position[j] = aside[j]
    for k in range(count):
        account.due[account.orders[k]] = due[calendar[account.orders[k]]]
    return list_orders(account)


@kernel
def guard(state: DrawdownState, equity: float, gross: float, terms: Terms) -> DrawdownState:
    """The drawdown policy's state after this close; unchanged where it is switched off."""
    if not terms.guarded:
        return state
    return drawdown_step(state, equity, gross, 0.0, False, terms.policy)
