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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import kernel
from tidemill.matching.rules import Floats, MatchingRules, VenueRow

# What became of an order; the index into a row of counts.
FILLED, PARTLY_FILLED, NO_BAR, NO_VOLUME, TOO_SMALL, NO_FUNDS = 0, 1, 2, 3, 4, 5
OUTCOMES = ("filled", "partly_filled", "no_bar", "no_volume", "too_small", "no_funds")
_ROUNDING = 1e-9  # 0.3 / 0.1 is 2.9999999999999996 and means 3


class Fills(NamedTuple):
    """Buffers for the fills of one bar, each of length `2 * symbols`. `side` is +1 for a buy and -1 for a sell;
    `slippage` is cash.
    """

    symbol: NDArray[np.int64]
    side: Floats
    quantity: Floats
    price: Floats
    fee: Floats
    slippage: Floats


def fill_buffers(symbols: int) -> Fills:
    size = 2 * symbols
    return Fills(np.zeros(size, np.int64), *(np.zeros(size) for _ in range(5)))


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
    fills: Fills, at: int, symbol: int, side: float, quantity: float, price: float, reference: float, fee_rate: float
) -> None:
    fills.symbol[at] = symbol
    fills.side[at] = side
    fills.quantity[at] = quantity
    fills.price[at] = price
    fills.fee[at] = commission(quantity * price, fee_rate)
    fills.slippage[at] = quantity * abs(price - reference)


@kernel
def _sell(
    symbol: int, wanted: float, held: float, reference: float, volume: float, venue: VenueRow, rules: MatchingRules
) -> tuple[float, float]:
    """Quantity sold and its price. A spot position cannot be sold below zero, whatever the order says."""
    if not venue.can_short[symbol]:
        wanted = min(wanted, max(held, 0.0))
    price = execution_price(reference, -1.0, rules.slippage_rate, venue.tick[symbol])
    quantity = fillable(wanted, price, volume, rules.participation, venue.lot[symbol], venue.min_notional[symbol])
    return min(quantity, wanted), price


@kernel
def _buy(
    symbol: int,
    cover: float,
    amount: float,
    budget: float,
    reference: float,
    volume: float,
    venue: VenueRow,
    rules: MatchingRules,
) -> tuple[float, float, float]:
    """Quantity bought, its price, and the quantity that was wanted had there been cash enough."""
    price = execution_price(reference, 1.0, rules.slippage_rate, venue.tick[symbol])
    one = price * (1.0 + rules.fee_rate)
    wanted = cover + amount / one
    payable = cover + max(min(amount, budget - cover * one), 0.0) / one
    quantity = fillable(payable, price, volume, rules.participation, venue.lot[symbol], venue.min_notional[symbol])
    return quantity, price, wanted


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
    fills: Fills,
    outcomes: NDArray[np.int64],
) -> tuple[float, int]:
    """Match the orders of one bar; returns the cash after them and the number of fills written to `fills`.

    orders[:order_count] are symbol indices in ascending order; the other rows have one cell per symbol. `position`
    and `outcomes` are updated in place, orders are consumed by the caller. An order with both a sell and a buy part
    does not exist.
    """
    made = 0
    for k in range(order_count):  # sells first: their proceeds pay for the buys
        j = orders[k]
        if order_quantity[j] >= 0.0:
            continue
        state = market_state(open_price[j], volume[j])
        if state == FILLED:
            quantity, price = _sell(j, -order_quantity[j], position[j], open_price[j], volume[j], venue, rules)
            state = _outcome(quantity, -order_quantity[j], venue.lot[j])
            if quantity > 0.0:
                _record(fills, made, j, -1.0, quantity, price, open_price[j], rules.fee_rate)
                cash += quantity * price - fills.fee[made]
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
            quantity, price, wanted = _buy(j, cover, amount, budget, open_price[j], volume[j], venue, rules)
            state = NO_FUNDS if quantity <= 0.0 and budget <= 0.0 else _outcome(quantity, wanted, venue.lot[j])
            if quantity > 0.0:
                _record(fills, made, j, 1.0, quantity, price, open_price[j], rules.fee_rate)
                paid = quantity * price + fills.fee[made]
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
