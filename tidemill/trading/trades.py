"""Round trips: from flat to flat, or to the other side. Average cost; compiled, one book for all symbols.

A trade begins with the fill that opens a position and ends with the fill that closes or turns it. Adding to it and
taking from it in between change its averages and its quantity. Splits restate its quantity, so prices and quantity
are in the units of its end. Profit is all cash that the position brought: sales less purchases less fees, plus
dividends, less borrow.
"""

import numpy as np

from tidemill.compiled import kernel
from tidemill.matching.rules import Floats

# Columns of a trade row.
TRADE_COLUMNS = 9
SYMBOL, SIDE, ENTRY_SLOT, EXIT_SLOT, ENTRY_PRICE, EXIT_PRICE, QUANTITY, TRADE_FEES, PROFIT = range(TRADE_COLUMNS)


# Cells of a symbol's row in the book: signed units held, entry slot, units and cash in and out, fees. One array for all
# of it, since a compiled call costs a reference count for every array that it takes.
BOOK_COLUMNS = 7
HELD, ENTRY, BOUGHT, PAID, SOLD, RECEIVED, FEES = range(BOOK_COLUMNS)


def new_book(symbols: int) -> Floats:
    """The open round trips of no one: float64 [symbols, BOOK_COLUMNS]."""
    return np.zeros((symbols, BOOK_COLUMNS))


@kernel
def book_split(book: Floats, j: int, ratio: float) -> None:
    """`ratio` new shares for one old."""
    book[j, HELD] *= ratio
    book[j, BOUGHT] *= ratio
    book[j, SOLD] *= ratio


@kernel
def _open(book: Floats, j: int, slot: int, quantity: float, price: float, fee: float) -> None:
    if book[j, HELD] == 0.0:
        for column in range(BOOK_COLUMNS):
            book[j, column] = 0.0
        book[j, ENTRY] = slot
    book[j, BOUGHT] += quantity
    book[j, PAID] += quantity * price
    book[j, FEES] += fee


@kernel
def write_trade(book: Floats, j: int, slot: int, carry: float, rows: Floats, at: int) -> None:
    """The round trip of symbol `j` as it stands, as row `at`; for an open one the caller first adds what it is worth."""
    side = 1.0 if book[j, HELD] > 0.0 else -1.0
    rows[at, SYMBOL] = j
    rows[at, SIDE] = side
    rows[at, ENTRY_SLOT] = book[j, ENTRY]
    rows[at, EXIT_SLOT] = slot
    rows[at, ENTRY_PRICE] = book[j, PAID] / book[j, BOUGHT]
    rows[at, EXIT_PRICE] = book[j, RECEIVED] / book[j, SOLD] if book[j, SOLD] > 0.0 else np.nan
    rows[at, QUANTITY] = book[j, BOUGHT]
    rows[at, TRADE_FEES] = book[j, FEES]
    rows[at, PROFIT] = side * (book[j, RECEIVED] - book[j, PAID]) - book[j, FEES] + carry


@kernel
def book_fill(
    book: Floats,
    j: int,
    slot: int,
    side: float,
    quantity: float,
    price: float,
    fee: float,
    after: float,
    carry: Floats,
    rows: Floats,
    at: int,
) -> bool:
    """Enter a fill that left the position at `after`; True if it ended a round trip, which row `at` then holds."""
    before = book[j, HELD]
    if before * side >= 0.0:
        if before == 0.0:
            carry[j] = 0.0
        _open(book, j, slot, quantity, price, fee)
        book[j, HELD] = after
        return False
    turned = abs(after) if after * before < 0.0 else 0.0
    closing = quantity - turned
    book[j, SOLD] += closing
    book[j, RECEIVED] += closing * price
    book[j, FEES] += fee * closing / quantity
    if after * before > 0.0:
        book[j, HELD] = after
        return False
    write_trade(book, j, slot, carry[j], rows, at)
    book[j, HELD] = 0.0
    carry[j] = 0.0
    if turned > 0.0:
        _open(book, j, slot, turned, price, fee * turned / quantity)
        book[j, HELD] = after
    return True
