"""The price collar: an order that would trade too far from the price at which it was decided is cancelled. Compiled and pure.

The reference of an order is its symbol's close when it was decided, carried over splits and dividends. A buy that would pay
more than reference · (1 + c), or a sale that would get less than reference · (1 - c), slippage and tick included, is cancelled.
What reduces a position must get out in the end: its c doubles with each slot in which it was cancelled so, up to four times c.
An order that turns a position is two in one, and what reduces of it is judged alone.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import kernel
from tidemill.matching.kernel import COLLAR, FILLED, SYMBOL, execution_price, market_state
from tidemill.matching.rules import Floats, MatchingRules, VenueRow

# Cells of a symbol: the close at which its order was decided, in today's units, and in how many slots its reduction was
# cancelled at the collar until now. One array, since a compiled call costs a reference count for every array that it takes.
COLLAR_COLUMNS = 2
REFERENCE, CANCELLED = 0, 1
_DOUBLINGS = 2
_ROUNDING = 1e-12  # of the price: five percent above 1.1 is within five percent, whatever the last bit


@kernel
def beyond(price: float, side: float, reference: float, width: float) -> bool:
    """Whether a buy (side +1) is dearer than `reference`, or a sale (-1) cheaper, by more than the share `width` of it."""
    return side * price > reference * (side + width) + _ROUNDING * price


@kernel
def reducing(quantity: float, position: float) -> float:
    """Units of an order of `quantity` (below 0 a sale) that only make `position` smaller."""
    return min(-quantity, max(position, 0.0)) if quantity < 0.0 else min(quantity, max(-position, 0.0))


@kernel
def keep_to_collar(
    orders: NDArray[np.int64],
    order_count: int,
    order_quantity: Floats,
    order_amount: Floats,
    position: Floats,
    collar: Floats,
    open_price: Floats,
    volume: Floats,
    venue: VenueRow,
    rules: MatchingRules,
    outcomes: NDArray[np.int64],
) -> int:
    """Take out of the orders of one bar (as of `match_row`) what the collar cancels; returns how many are left in `orders`.

    collar: [symbols, COLLAR_COLUMNS]. What cannot trade in this bar at all is left to `match_row`.
    """
    left = 0
    for k in range(order_count):
        j = orders[k]
        side, reduces = (-1.0 if order_quantity[j] < 0.0 else 1.0), reducing(order_quantity[j], position[j])
        if reduces == 0.0:
            collar[j, CANCELLED] = 0.0
        price = execution_price(open_price[j], side, rules.slippage_rate, venue.tick[j])
        if market_state(open_price[j], volume[j]) == FILLED and beyond(price, side, collar[j, REFERENCE], rules.collar):
            wider = rules.collar * 2.0 ** min(collar[j, CANCELLED], _DOUBLINGS)
            passes = reduces > 0.0 and not beyond(price, side, collar[j, REFERENCE], wider)
            if not passes or order_amount[j] > 0.0 or abs(order_quantity[j]) > reduces * (1.0 + _ROUNDING):
                outcomes[COLLAR] += 1
            order_quantity[j], order_amount[j] = (side * reduces if passes else 0.0), 0.0
            if not passes:
                collar[j, CANCELLED] += reduces > 0.0
                continue
        orders[left] = j
        left += 1
    return left


@kernel
def forget_cancelled(collar: Floats, fills: Floats, made: int) -> None:
    """What filled begins with the narrow collar again."""
    for k in range(made):
        collar[int(fills[k, SYMBOL]), CANCELLED] = 0.0


@kernel
def collared(rules: MatchingRules) -> bool:
    """Whether there is a collar at all."""
    return rules.collar < math.inf
