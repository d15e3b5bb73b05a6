"""Extremes, their places and ranks over windows, for a block of lanes at once (layout: windows.py)."""

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Floats, Integers
from tidemill.features.kernels.formulas import enough
from tidemill.features.kernels.scratch import COUNT, S1, S2, SHIFT
from tidemill.features.kernels.windows import add_counts, bars, clear
from tidemill.features.opcodes import ARG_OLDEST, EMIT_PLACE, GREATEST, LEAST, OPCODE, OUT, WINDOW


@kernel
def greater(best: float, value: float) -> float:
    return value if value > best else best


@kernel
def scan_greatest(sign: float, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """S1 := the greatest of S1 and the values k … end - 1 bars back, times sign. A comparison with NaN leaves it."""
    while k + 4 <= end:
        a, b = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        c, e = bars(memory, start, k + 2, back, lanes), bars(memory, start, k + 3, back, lanes)
        for i in range(lanes):
            best = greater(greater(scratch[S1 + i], sign * a[i]), sign * b[i])
            scratch[S1 + i] = greater(greater(best, sign * c[i]), sign * e[i])
        k += 4
    while k < end:
        x = bars(memory, start, k, back, lanes)
        for i in range(lanes):
            scratch[S1 + i] = greater(scratch[S1 + i], sign * x[i])
        k += 1


@kernel
def extremes(group: int, rows: Integers, memory: Floats, at: Integers, start: int, back: int, lanes: int, full: bool,
             scratch: Floats) -> None:  # fmt: skip
    """GREATEST or SMALLEST value of growing windows."""
    sign = 1.0 if group == GREATEST else -1.0
    clear(scratch, COUNT, COUNT, lanes)
    for i in range(lanes):
        scratch[S1 + i] = -np.inf
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
def scan_oldest(sign: float, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """S1, S2 := the greatest value times sign and how far back it stands; of equals the oldest."""
    while k + 2 <= end:
        x, y = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        near, far = float(k), float(k + 1)
        for i in range(lanes):
            best, place, first, second = scratch[S1 + i], scratch[S2 + i], sign * x[i], sign * y[i]
            place = near if first >= best else place
            best = first if first >= best else best
            scratch[S2 + i] = far if second >= best else place
            scratch[S1 + i] = second if second >= best else best
        k += 2
    while k < end:
        x, near = bars(memory, start, k, back, lanes), float(k)
        for i in range(lanes):
            best, first = scratch[S1 + i], sign * x[i]
            scratch[S2 + i] = near if first >= best else scratch[S2 + i]
            scratch[S1 + i] = first if first >= best else best
        k += 1


@kernel
def scan_newest(sign: float, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """As `scan_oldest`; of equals the newest."""
    while k < end:
        x, near = bars(memory, start, k, back, lanes), float(k)
        for i in range(lanes):
            best, first = scratch[S1 + i], sign * x[i]
            scratch[S2 + i] = near if first > best else scratch[S2 + i]
            scratch[S1 + i] = first if first > best else best
        k += 1


@kernel
def places(group: int, rows: Integers, sign: float, memory: Floats, at: Integers, start: int, age: int, back: int, lanes: int,
           full: bool, scratch: Floats) -> None:  # fmt: skip
    """Where the greatest (sign 1) or smallest (-1) value stands; `age` is the place of the node that counts a symbol's bars."""
    clear(scratch, COUNT, COUNT, lanes)
    for i in range(lanes):
        scratch[S1 + i] = -np.inf
        scratch[S2 + i] = np.nan
    ages = memory[age : age + lanes]
    k = 0
    for row in range(len(rows)):
        end = rows[row, WINDOW]
        if group == ARG_OLDEST:
            scan_oldest(sign, memory, start, k, end, back, lanes, scratch)
        else:
            scan_newest(sign, memory, start, k, end, back, lanes, scratch)
        add_counts(full, memory, start, k, end, back, lanes, scratch)
        k = end
        place, least, window = at[rows[row, OUT]], float(rows[row, LEAST]), float(end)
        out = memory[place : place + lanes]
        if rows[row, OPCODE] == EMIT_PLACE:
            for i in range(lanes):
                held = ages[i] if ages[i] < window else window
                out[i] = enough(held - scratch[S2 + i], scratch[COUNT + i], least)
        else:
            for i in range(lanes):
                out[i] = enough(scratch[S2 + i], scratch[COUNT + i], least)


@kernel
def scan_rank(memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """S1, S2 := how many values are below the newest (SHIFT) and how many equal it."""
    while k + 2 <= end:
        x, y = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        for i in range(lanes):
            mark, near, far = scratch[SHIFT + i], x[i], y[i]
            scratch[S1 + i] = (scratch[S1 + i] + (1.0 if near < mark else 0.0)) + (1.0 if far < mark else 0.0)
            scratch[S2 + i] = (scratch[S2 + i] + (1.0 if near == mark else 0.0)) + (1.0 if far == mark else 0.0)
        k += 2
    while k < end:
        x = bars(memory, start, k, back, lanes)
        for i in range(lanes):
            mark, near = scratch[SHIFT + i], x[i]
            scratch[S1 + i] += 1.0 if near < mark else 0.0
            scratch[S2 + i] += 1.0 if near == mark else 0.0
        k += 1


@kernel
def ranks(rows: Integers, memory: Floats, at: Integers, start: int, back: int, lanes: int, full: bool, scratch: Floats) -> None:
    """Average-tie percentile of the newest value; NaN where it is not a number."""
    newest = memory[start : start + lanes]
    clear(scratch, COUNT, S2, lanes)
    for i in range(lanes):
        scratch[SHIFT + i] = newest[i]
    k = 0
    for row in range(len(rows)):
        end = rows[row, WINDOW]
        scan_rank(memory, start, k, end, back, lanes, scratch)
        add_counts(full, memory, start, k, end, back, lanes, scratch)
        k = end
        place, least = at[rows[row, OUT]], float(rows[row, LEAST])
        out = memory[place : place + lanes]
        for i in range(lanes):
            n = scratch[COUNT + i]
            value = (scratch[S1 + i] + (scratch[S2 + i] + 1.0) / 2.0) / n
            out[i] = enough(value if scratch[SHIFT + i] == scratch[SHIFT + i] else np.nan, n, least)
