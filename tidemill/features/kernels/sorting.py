"""Quantiles over windows, from lists that stay sorted from bar to bar: the oldest value leaves, the newest comes in.

Sorting rounds nothing and the list of a window is a function of the values in it, so the bits depend on the last `window`
values only. A list of a window of w values has w + 2 rows: -infinity, the values in ascending order with infinity for each that
is missing, infinity. In a scan a row is one number; in a step it is as wide as a row of symbols.
"""

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Flags, Floats, Integers
from tidemill.features.kernels.elementwise import finite
from tidemill.features.kernels.scratch import COUNT, S1, S2, SK
from tidemill.features.kernels.windows import add_counts, bars, clear
from tidemill.features.opcodes import BLOCK, LEAST, OUT, SLOT, WINDOW

LEAVING, COMING, SHIFTED = S1, S2, SK
LOWER, UPPER, PART = S1, S2, SK


@kernel
def listed(value: float) -> float:
    """How a value stands in a list: missing is infinity, and adding 0 makes -0.0 and 0.0 one value."""
    return value + 0.0 if value == value else np.inf


@kernel
def exchange(own: Floats, window: int, leaving: float, coming: float) -> None:
    """Take one value out of one list and put another in. `own` has the window's w + 2 rows.

    What stands between the two moves by one row, over the place of the leaving value: from the row above when the coming value
    is greater, from the row below else. Rows are visited so that each is read before it is written.
    """
    if coming >= leaving:
        for j in range(1, window + 1):
            here, above = own[j], own[j + 1]
            low = above if above < coming else coming
            low = here if here > low else low
            own[j] = here if here < leaving else low
    else:
        for j in range(window, 0, -1):
            here, below = own[j], own[j - 1]
            high = below if below > coming else coming
            high = here if here < high else high
            own[j] = here if here > leaving else high


@kernel
def exchange_rows(lists: Floats, first: int, window: int, width: int, lanes: int, scratch: Floats) -> None:
    """The same for `lanes` lists side by side, a row of which is `width` wide; LEAVING and COMING in scratch.

    Without the leaving value, row j holds the old row j or j + 1 (SHIFTED: that of the row below); with the coming one, the
    median of that one, of the row below and of the coming value.
    """
    for i in range(lanes):
        scratch[SHIFTED + i] = -np.inf
    for j in range(1, window + 1):
        begin = first + j * width
        here, above = lists[begin : begin + lanes], lists[begin + width : begin + width + lanes]
        for i in range(lanes):
            leaving, coming, left = scratch[LEAVING + i], scratch[COMING + i], scratch[SHIFTED + i]
            right = here[i] if here[i] < leaving else above[i]
            low = right if right < coming else coming
            here[i] = left if left > low else low
            scratch[SHIFTED + i] = right


@kernel
def quantile_of(lists: Floats, first: int, width: int, n: float, share: float, least: float) -> float:
    """The quantile of the n lowest values of a list whose lowest is at `first`: linear between the two it falls between."""
    if n < least or n < 1.0:
        return np.nan
    position = share * (n - 1.0)
    whole = int(position)
    lower, upper = lists[first + whole * width], lists[first + min(whole + 1, int(n) - 1) * width]
    return finite(lower + (upper - lower) * (position - float(whole)))


@kernel
def full_quantiles(out: Floats, lists: Floats, first: int, width: int, window: int, share: float, least: float) -> None:
    """`quantile_of` for lanes that miss no value: the two rows are the same for all."""
    position = share * (float(window) - 1.0)
    whole = int(position)
    part, begin, end = position - float(whole), first + whole * width, first + min(whole + 1, window - 1) * width
    lower, upper = lists[begin : begin + len(out)], lists[end : end + len(out)]
    for i in range(len(out)):
        value = finite(lower[i] + (upper[i] - lower[i]) * part)
        out[i] = value if float(window) >= least else np.nan


@kernel
def find_places(shares: Floats, first: int, end: int, window: int, scratch: Floats) -> None:
    """For EMIT rows first … end - 1 of one window: where the two values of a full list stand, and the part between them."""
    for same in range(first, end):
        position = shares[same] * (float(window) - 1.0)
        whole = int(position)
        scratch[LOWER + same - first] = float(1 + whole)
        scratch[UPPER + same - first] = float(1 + min(whole + 1, window - 1))
        scratch[PART + same - first] = position - float(whole)


@kernel
def slide(rows: Integers, shares: Floats, memory: Floats, at: Integers, start: int, lanes: int, lists: Floats,
          scratch: Floats) -> None:  # fmt: skip
    """Quantiles of bars that follow each other, one window after the other."""
    row = 0
    while row < len(rows):
        window, end, held = rows[row, WINDOW], row, 0
        while end < len(rows) and rows[end, WINDOW] == window:
            end += 1
        own = lists[rows[row, SLOT] : rows[row, SLOT] + window + 2]
        find_places(shares, row, min(end, row + BLOCK), window, scratch)
        old, new = memory[start - window : start - window + lanes], memory[start : start + lanes]
        for k in range(1, window + 1):
            held += memory[start - k] == memory[start - k]
        for i in range(lanes):
            exchange(own, window, listed(old[i]), listed(new[i]))
            held += int(new[i] == new[i]) - int(old[i] == old[i])
            for same in range(row, end):
                place, least = at[rows[same, OUT]] + i, float(rows[same, LEAST])
                if held == window and same - row < BLOCK:
                    low = own[int(scratch[LOWER + same - row])]
                    high = own[int(scratch[UPPER + same - row])]
                    memory[place] = finite(low + (high - low) * scratch[PART + same - row])
                else:
                    memory[place] = quantile_of(own, 1, 1, float(held), shares[same], least)
        row = end


@kernel
def trade(memory: Floats, start: int, first: int, window: int, back: int, lanes: int, lists: Floats, present: Flags,
          partial: bool, scratch: Floats) -> None:  # fmt: skip
    """Move the lists of one window on by a bar; an absent symbol's own lowest value leaves and comes back."""
    old, new = bars(memory, start, window, back, lanes), memory[start : start + lanes]
    lowest = lists[first + back : first + back + lanes]
    for i in range(lanes):
        scratch[LEAVING + i] = listed(old[i])
        scratch[COMING + i] = listed(new[i])
    if partial:
        for i in range(lanes):
            if not present[i]:
                scratch[LEAVING + i] = scratch[COMING + i] = lowest[i]
    exchange_rows(lists, first, window, back, lanes, scratch)


@kernel
def quantiles(rows: Integers, shares: Floats, memory: Floats, at: Integers, start: int, back: int, lanes: int, lists: Floats,
              offset: int, present: Flags, partial: bool, full: bool, scratch: Floats) -> None:  # fmt: skip
    """Quantiles of a row of symbols, `back` apart; `offset` is the first symbol's place in a row."""
    clear(scratch, COUNT, COUNT, lanes)
    k, listed_row = 0, -1
    for row in range(len(rows)):
        window, first = rows[row, WINDOW], rows[row, SLOT] * back + offset
        if rows[row, SLOT] != listed_row:
            trade(memory, start, first, window, back, lanes, lists, present, partial, scratch)
            add_counts(full, memory, start, k, window, back, lanes, scratch)
            k, listed_row = window, rows[row, SLOT]
        place, share, least = at[rows[row, OUT]], shares[row], float(rows[row, LEAST])
        if full:
            full_quantiles(memory[place : place + lanes], lists, first + back, back, window, share, least)
        else:
            for i in range(lanes):
                memory[place + i] = quantile_of(lists, first + back + i, back, scratch[COUNT + i], share, least)
