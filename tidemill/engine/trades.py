"""Round trips: from flat to flat, or to the other side. Average cost; compiled, one book for all symbols.

A trade begins with the fill that opens a position and ends with the fill that closes or turns it. Adding to it and
taking from it in between change its averages and its quantity. Splits restate its quantity, so prices and quantity
are in the units of its end. Profit is all cash that the position brought: sales less purchases less fees, plus
dividends, less borrow.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import kernel
from tidemill.matching.rules import Floats

# Columns of a trade row.
TRADE_COLUMNS = 9
SYMBOL, SIDE, ENTRY_SLOT, EXIT_SLOT, ENTRY_PRICE, EXIT_PRICE, QUANTITY, TRADE_FEES, PROFIT = range(TRADE_COLUMNS)


class Book(NamedTuple):
    """The open round trip of each symbol: signed units held, entry slot, units and cash in and out, fees."""

    held: Floats
    entry: NDArray[np.int64]
    bought: Floats
    paid: Floats
    sold: Floats
    received: Floats
    fees: Floats


def new_book(symbols: int) -> Book:
    return Book(np.zeros(symbols), np.zeros(symbols, np.int64), *(np.zeros(symbols) for _ in range(5)))


@kernel
def book_split(book: Book, j: int, ratio: float) -> None:
    """`ratio` new shares for one old."""
    book.held[j] *= ratio
    book.bought[j] *= ratio
    book.sold[j] *= ratio


@kernel
def _open(book: Book, j: int, slot: int, side: float, quantity: float, price: float, fee: float) -> None:
    if book.held[j] == 0.0:
        book.entry[j] = slot
        book.bought[j] = book.paid[j] = book.sold[j] = book.received[j] = book.fees[j] = 0.0
    book.bought[j] += quantity
    book.paid[j] += quantity * price
    book.fees[j] += fee
    book.held[j] += side * quantity


@kernel
def write_trade(book: Book, j: int, slot: int, carry: float, row: Floats) -> None:
    """The round trip of symbol `j` as it stands, as one row; for an open one the caller first adds what it is worth."""
    side = 1.0 if book.held[j] > 0.0 else -1.0
    row[SYMBOL] = j
    row[SIDE] = side
    row[ENTRY_SLOT] = book.entry[j]
    row[EXIT_SLOT] = slot
    row[ENTRY_PRICE] = book.paid[j] / book.bought[j]
    row[EXIT_PRICE] = book.received[j] / book.sold[j] if book.sold[j] > 0.0 else np.nan
    row[QUANTITY] = book.bought[j]
    row[TRADE_FEES] = book.fees[j]
    row[PROFIT] = side * (book.received[j] - book.paid[j]) - book.fees[j] + carry


@kernel
def book_fill(
    book: Book,
    j: int,
    slot: int,
    side: float,
    quantity: float,
    price: float,
    fee: float,
    after: float,
    carry: Floats,
    row: Floats,
) -> bool:
    """Enter a fill that left the position at `after`; True if it ended a round trip, which `row` then holds."""
    before = book.held[j]
    if before * side >= 0.0:
        if before == 0.0:
            carry[j] = 0.0
        _open(book, j, slot, side, quantity, price, fee)
        book.held[j] = after
        return False
    turned = abs(after) if after * before < 0.0 else 0.0
    closing = quantity - turned
    book.sold[j] += closing
    book.received[j] += closing * price
    book.fees[j] += fee * closing / quantity
    if after * before > 0.0:
        book.held[j] = after
        return False
    write_trade(book, j, slot, carry[j], row)
    book.held[j] = 0.0
    carry[j] = 0.0
    if turned > 0.0:
        _open(book, j, slot, side, turned, price, fee * turned / quantity)
        book.held[j] = after
    return True
