"""The one copy of order matching: rounding, fees, funds and the fills of one bar. Compiled and pure; backtest and
replay exchange import it.

An order of one symbol is a pair: `quantity` below zero sells that many units (short sales included), above zero buys
that many to cover a short; `amount` buys for that much cash, costs included. A buy is an amount of cash and not a
number of units, so a gap at the open can never spend more than there is.

The rules (NUMBERS, Fills and accounts): orders fill at the open of the bar, worse by the slippage; up to a share of
the bar's volume, the rest is cancelled; without a bar or without volume nothing fills; sells run first, then buys,
each by symbol; buys share the cash there is after the sells less the reserve, and the part of a buy that covers a
short is never refused for want of cash.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import kernel
from tidemill.matching.rules import Floats, MatchingRules, VenueRow

# What became of an order; the index into a row of counts.
FILLED, PARTLY_FILLED, NO_BAR, NO_VOLUME, TOO_SMALL, NO_FUNDS, COLLAR = 0, 1, 2, 3, 4, 5, 6
OUTCOMES = ("filled", "partly_filled", "no_bar", "no_volume", "too_small", "no_funds", "collar")
_ROUNDING = 1e-9  # 0.3 / 0.1 is 2.9999999999999996 and means 3


# Columns of a fill. Side is +1 for a buy and -1 for a sell; slippage is cash. Fills are rows of one array, since a
# compiled call costs a reference count for every array that it takes.
FILL_COLUMNS = 6
SYMBOL, SIDE, QUANTITY, PRICE, FEE, SLIPPAGE = range(FILL_COLUMNS)


def fill_buffer(symbols: int) -> Floats:
    """Room for the fills of one bar."""
    return np.zeros((symbols, FILL_COLUMNS))


@kernel
def whole_lots(quantity: float, lot: float) -> float:
    """`quantity` (≥ 0) rounded down to a multiple of `lot`; a lot of 0 means any fraction."""
    if lot <= 0.0:
        return quantity
    count = quantity / lot
    return math.floor(count + max(_ROUNDING, count * 4e-16)) * lot


@kernel
def price_on_tick(price: float, tick: float, side: float) -> float:
    """`price` on the grid of `tick`, rounded against us: up for a buy, down for a sell, never below one tick."""
    if tick <= 0.0:
        return price
    count = price / tick
    slack = max(_ROUNDING, count * 4e-16)
    if side > 0.0:
        return math.ceil(count - slack) * tick
    return max(math.floor(count + slack), 1.0) * tick


@kernel
def execution_price(reference: float, side: float, slippage_rate: float, tick: float) -> float:
    """What a market order pays (side +1) or gets (side -1) when the market stands at `reference`."""
    return price_on_tick(reference * (1.0 + side * slippage_rate), tick, side)


@kernel
def commission(notional: float, fee_rate: float) -> float:
    """Fee in cash for a fill of `notional` (> 0)."""
    return notional * fee_rate


@kernel
def fillable(wanted: float, price: float, volume: float, participation: float, lot: float, min_notional: float) -> float:
    """Units that fill out of `wanted`, after the volume cap, the lot and the minimum notional; 0 if the order is too small."""
    quantity = whole_lots(min(wanted, participation * volume), lot)
    if quantity <= 0.0 or quantity * price < min_notional:
        return 0.0
    return quantity


@kernel
def market_state(reference: float, volume: float) -> int:
    """FILLED if an order can trade against this bar, else why it cannot."""
    if not reference > 0.0:  # also NaN: the symbol has no bar in this slot
        return NO_BAR
    if not volume > 0.0:
        return NO_VOLUME
    return FILLED


@kernel
def _record(
    fills: Floats, at: int, symbol: int, side: float, quantity: float, price: float, reference: float, fee_rate: float
) -> float:
    """Write a fill and return its fee."""
    fee = commission(quantity * price, fee_rate)
    fills[at, SYMBOL] = symbol
    fills[at, SIDE] = side
    fills[at, QUANTITY] = quantity
    fills[at, PRICE] = price
    fills[at, FEE] = fee
    fills[at, SLIPPAGE] = quantity * abs(price - reference)
    return fee


@kernel
def payable(cover: float, amount: float, budget: float, price: float, fee_rate: float) -> float:
    """Units that a buy can pay for: all of the cover, and of `amount` what the rest of the budget allows, costs included."""
    one = price * (1.0 + fee_rate)
    return cover + max(min(amount, budget - cover * one), 0.0) / one


@kernel
def _outcome(quantity: float, wanted: float, lot: float) -> int:
    if quantity <= 0.0:
        return TOO_SMALL
    if quantity < wanted * (1.0 - _ROUNDING) - lot:
        return PARTLY_FILLED
    return FILLED


@kernel
def match_row(
    orders: NDArray[np.int64],
    order_count: int,
    order_quantity: Floats,
    order_amount: Floats,
    position: Floats,
    cash: float,
    open_price: Floats,
    volume: Floats,
    venue: VenueRow,
    rules: MatchingRules,
    fills: Floats,
    outcomes: NDArray[np.int64],
) -> tuple[float, int]:
    """Match the orders of one bar; returns the cash after them and the number of fills written to `fills`.

    orders[:order_count] are symbol indices in ascending order; the other rows have one cell per symbol. `position`
    and `outcomes` are updated in place, orders are consumed by the caller. An order with both a sell and a buy part
    does not exist.
    """
    lots, ticks, smallest, can_short = venue.lot, venue.tick, venue.min_notional, venue.can_short
    made = 0
    for k in range(order_count):  # sells first: their proceeds pay for the buys
        j = orders[k]
        wanted = -order_quantity[j]
        if wanted <= 0.0:
            continue
        state = market_state(open_price[j], volume[j])
        if state == FILLED:
            if not can_short[j]:
                wanted = min(wanted, max(position[j], 0.0))
            price = execution_price(open_price[j], -1.0, rules.slippage_rate, ticks[j])
            quantity = min(fillable(wanted, price, volume[j], rules.participation, lots[j], smallest[j]), wanted)
            state = _outcome(quantity, wanted, lots[j])
            if quantity > 0.0:
                cash += quantity * price - _record(fills, made, j, -1.0, quantity, price, open_price[j], rules.fee_rate)
                position[j] = settled(position[j], -quantity)
                made += 1
        outcomes[state] += 1
    budget = cash * (1.0 - rules.reserve)
    for k in range(order_count):
        j = orders[k]
        cover, amount = max(order_quantity[j], 0.0), order_amount[j]
        if order_quantity[j] < 0.0 or cover + amount <= 0.0:
            continue
        state = market_state(open_price[j], volume[j])
        if state == FILLED:
            price = execution_price(open_price[j], 1.0, rules.slippage_rate, ticks[j])
            units = payable(cover, amount, budget, price, rules.fee_rate)
            quantity = fillable(units, price, volume[j], rules.participation, lots[j], smallest[j])
            wanted = cover + amount / (price * (1.0 + rules.fee_rate))
            state = NO_FUNDS if quantity <= 0.0 and budget <= 0.0 else _outcome(quantity, wanted, lots[j])
            if quantity > 0.0:
                paid = quantity * price + _record(fills, made, j, 1.0, quantity, price, open_price[j], rules.fee_rate)
                cash, budget = cash - paid, budget - paid
                position[j] = settled(position[j], quantity)
                made += 1
        outcomes[state] += 1
    return cash, made


@kernel
def settled(position: float, change: float) -> float:
    """The position after a fill; what is left of rounding alone counts as flat."""
    after = position + change
    return 0.0 if abs(after) <= 1e-12 * abs(change) else after
