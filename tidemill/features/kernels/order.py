"""Extremes, their places, ranks and quantiles over windows, for a block of lanes at once (layout: see windows.py)."""

import numpy as np

from tidemill.features.arrays import Floats, Integers
from tidemill.features.kernel_cache import kernel
from tidemill.features.kernels.elementwise import finite
from tidemill.features.kernels.windows import COUNT, S1, S2, SHIFT, add_counts, enough, is_full
from tidemill.features.opcodes import ARG_OLDEST, EMIT_PLACE, GREATEST, LEAST, OPCODE, OUT, WINDOW

# Lanes sorted side by side: a window of 60 for 32 lanes stays in the first-level cache.
SORT_LANES = 32


@kernel
def scan_greatest(sign: float, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """S1 := the greatest of S1 and the values k … end - 1 bars back, times sign. A comparison with NaN leaves it."""
    while k + 2 <= end:
        x, y = (
            memory[start - k * back : start - k * back + lanes],
            memory[start - (k + 1) * back : start - (k + 1) * back + lanes],
        )
        for i in range(lanes):
            best, near, far = scratch[S1 + i], sign * x[i], sign * y[i]
            best = near if near > best else best
            scratch[S1 + i] = far if far > best else best
        k += 2
    while k < end:
        x = memory[start - k * back : start - k * back + lanes]
        for i in range(lanes):
            best, near = scratch[S1 + i], sign * x[i]
            scratch[S1 + i] = near if near > best else best
        k += 1


@kernel
def extremes(
    group: int, rows: Integers, memory: Floats, at: Integers, start: int, back: int, lanes: int, scratch: Floats
) -> None:
    """GREATEST or SMALLEST value of growing windows."""
    sign = 1.0 if group == GREATEST else -1.0
    for i in range(lanes):
        scratch[COUNT + i] = 0.0
        scratch[S1 + i] = -np.inf
    full = is_full(memory, start, back, rows[-1, WINDOW], lanes)
    k = 0
    for row in range(len(rows)):
        end, place, least = rows[row, WINDOW], at[rows[row, OUT]], float(rows[row, LEAST])
        scan_greatest(sign, memory, start, k, end, back, lanes, scratch)
        add_counts(full, memory, start, k, end, back, lanes, scratch)
        k = end
        out = memory[place : place + lanes]
        for i in range(lanes):
            out[i] = enough(sign * scratch[S1 + i], scratch[COUNT + i], least)


@kernel
def scan_place(x: Floats, k: float, sign: float, oldest: bool, lanes: int, scratch: Floats) -> None:
    if oldest:
        for i in range(lanes):
            value, best = sign * x[i], scratch[S1 + i]
            better = value >= best
            scratch[S1 + i] = value if better else best
            scratch[S2 + i] = k if better else scratch[S2 + i]
            scratch[COUNT + i] += 1.0 if value == value else 0.0
    else:
        for i in range(lanes):
            value, best = sign * x[i], scratch[S1 + i]
            better = value > best
            scratch[S1 + i] = value if better else best
            scratch[S2 + i] = k if better else scratch[S2 + i]
            scratch[COUNT + i] += 1.0 if value == value else 0.0


@kernel
def places(group: int, rows: Integers, sign: float, memory: Floats, at: Integers, start: int, age: int, back: int, lanes: int,
           scratch: Floats) -> None:  # fmt: skip
    """Where the greatest (sign 1) or smallest (-1) value stands; `age` is the place of the node that counts a symbol's bars."""
    for i in range(lanes):
        scratch[COUNT + i] = 0.0
        scratch[S1 + i] = -np.inf
        scratch[S2 + i] = np.nan
    bars = memory[age : age + lanes]
    k = 0
    for row in range(len(rows)):
        while k < rows[row, WINDOW]:
            scan_place(memory[start - k * back : start - k * back + lanes], float(k), sign, group == ARG_OLDEST, lanes, scratch)
            k += 1
        place, least, window = at[rows[row, OUT]], float(rows[row, LEAST]), float(rows[row, WINDOW])
        out = memory[place : place + lanes]
        if rows[row, OPCODE] == EMIT_PLACE:
            for i in range(lanes):
                held = bars[i] if bars[i] < window else window
                out[i] = enough(held - scratch[S2 + i], scratch[COUNT + i], least)
        else:
            for i in range(lanes):
                out[i] = enough(scratch[S2 + i], scratch[COUNT + i], least)


@kernel
def ranks(rows: Integers, memory: Floats, at: Integers, start: int, back: int, lanes: int, scratch: Floats) -> None:
    """Average-tie percentile of the newest value; NaN where it is not a number."""
    newest = memory[start : start + lanes]
    for i in range(lanes):
        scratch[COUNT + i] = scratch[S1 + i] = scratch[S2 + i] = 0.0
        scratch[SHIFT + i] = newest[i]
    k = 0
    for row in range(len(rows)):
        while k < rows[row, WINDOW]:
            x = memory[start - k * back : start - k * back + lanes]
            for i in range(lanes):
                value, mark = x[i], scratch[SHIFT + i]
                scratch[COUNT + i] += 1.0 if value == value else 0.0
                scratch[S1 + i] += 1.0 if value < mark else 0.0
                scratch[S2 + i] += 1.0 if value == mark else 0.0
            k += 1
        place, least = at[rows[row, OUT]], float(rows[row, LEAST])
        out = memory[place : place + lanes]
        for i in range(lanes):
            n = scratch[COUNT + i]
            value = (scratch[S1 + i] + (scratch[S2 + i] + 1.0) / 2.0) / n
            out[i] = enough(value if scratch[SHIFT + i] == scratch[SHIFT + i] else np.nan, n, least)


@kernel
def insert(x: Floats, held: int, ordered: Floats) -> None:
    """Put one value a lane into its ascending list of `held`; what is not a number goes to the end as infinity.

    All SORT_LANES lanes are worked on, used or not: a fixed number is what the compiler turns into vector minima and maxima.
    """
    carried = np.full(SORT_LANES, np.inf)
    for i in range(len(x)):
        # Adding 0 makes -0.0 and 0.0 one value: their order would depend on the algorithm.
        carried[i] = x[i] + 0.0 if x[i] == x[i] else np.inf
    for j in range(held):
        row = ordered[j * SORT_LANES : (j + 1) * SORT_LANES]
        for i in range(SORT_LANES):
            low, value = row[i], carried[i]
            row[i] = value if value < low else low
            carried[i] = low if value < low else value
    ordered[held * SORT_LANES : (held + 1) * SORT_LANES] = carried


@kernel
def quantile_of(ordered: Floats, first: int, stride: int, n: float, share: float, least: float) -> float:
    """The quantile of n ascending values at `first`, `stride` apart: linear between the two that it falls between."""
    if n < least or n < 1.0:
        return np.nan
    position = share * (n - 1.0)
    whole = int(position)
    lower, upper = ordered[first + whole * stride], ordered[first + min(whole + 1, int(n) - 1) * stride]
    return finite(lower + (upper - lower) * (position - float(whole)))


@kernel
def replace(ordered: Floats, held: int, old: float, new: float) -> int:
    """Take one value out of an ascending list and put another in; NaN stands for none. The new number of values."""
    if old != old and new != new:
        return held
    place, goal = 0, 0
    for j in range(held):
        place += ordered[j] < old
        goal += ordered[j] < new
    if old != old:
        place = held
        held += new == new
    elif new != new:
        held -= 1
        goal = held + 1
    goal -= goal > place  # once the old value is out
    for j in range(place, goal):
        ordered[j] = ordered[j + 1]
    for j in range(place, goal, -1):
        ordered[j] = ordered[j - 1]
    if new == new:
        ordered[goal] = new + 0.0  # one zero: see insert()
    return held


@kernel
def slide_quantiles(
    rows: Integers, shares: Floats, memory: Floats, at: Integers, start: int, lanes: int, ordered: Floats
) -> None:
    """Quantiles of bars that follow each other: the sorted window of the last bar, less the oldest value, with the newest."""
    row = 0
    while row < len(rows):
        window, end, held = rows[row, WINDOW], row, 0
        while end < len(rows) and rows[end, WINDOW] == window:
            end += 1
        for k in range(window):
            held = replace(ordered, held, np.nan, memory[start - k])
        for i in range(lanes):
            if i > 0:
                held = replace(ordered, held, memory[start + i - window], memory[start + i])
            for same in range(row, end):
                memory[at[rows[same, OUT]] + i] = quantile_of(
                    ordered, 0, 1, float(held), shares[same], float(rows[same, LEAST])
                )
        row = end


@kernel
def quantiles(rows: Integers, shares: Floats, memory: Floats, at: Integers, start: int, back: int, lanes: int, ordered: Floats,
              scratch: Floats) -> None:  # fmt: skip
    """Quantiles of growing windows. Sorting rounds nothing: a scan may keep one list up to date where a step sorts afresh."""
    if back == 1:
        slide_quantiles(rows, shares, memory, at, start, lanes, ordered)
        return
    for first in range(0, lanes, SORT_LANES):
        width = min(SORT_LANES, lanes - first)
        counts = scratch[COUNT : COUNT + width]
        for i in range(width):
            counts[i] = 0.0
        k = 0
        for row in range(len(rows)):
            while k < rows[row, WINDOW]:
                begin = start + first - k * back
                x = memory[begin : begin + width]
                insert(x, k, ordered)
                for i in range(width):
                    counts[i] += 1.0 if x[i] == x[i] else 0.0
                k += 1
            place = at[rows[row, OUT]] + first
            for i in range(width):
                memory[place + i] = quantile_of(ordered, i, SORT_LANES, counts[i], shares[row], float(rows[row, LEAST]))
