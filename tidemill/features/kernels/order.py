"""Extremes, their places, ranks and quantiles over windows, for a block of lanes at once (layout: see windows.py)."""

import math

import numpy as np

from tidemill.features.arrays import Floats, Integers
from tidemill.features.kernel_cache import kernel
from tidemill.features.kernels.windows import COUNT, S1, S2, SHIFT, enough
from tidemill.features.opcodes import ARG_OLDEST, EMIT_PLACE, GREATEST, LEAST, OPCODE, OUT, WINDOW

# Lanes sorted side by side: a window of 60 for 32 lanes stays in the first-level cache.
SORT_LANES = 32


@kernel
def extremes(group: int, rows: Integers, memory: Floats, at: Integers, start: int, back: int, lanes: int, scratch: Floats) -> None:
    """GREATEST or SMALLEST value of growing windows."""
    sign = 1.0 if group == GREATEST else -1.0
    for i in range(lanes):
        scratch[COUNT + i] = 0.0
        scratch[S1 + i] = -np.inf
    k = 0
    for row in range(len(rows)):
        while k < rows[row, WINDOW]:
            x = memory[start - k * back : start - k * back + lanes]
            for i in range(lanes):
                value, best = sign * x[i], scratch[S1 + i]
                scratch[S1 + i] = value if value > best else best
                scratch[COUNT + i] += 1.0 if value == value else 0.0
            k += 1
        place, least = at[rows[row, OUT]], float(rows[row, LEAST])
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
def insert(x: Floats, held: int, ordered: Floats, lanes: int) -> None:
    """Put one value a lane into its ascending list of `held`; what is not a number goes to the end as infinity."""
    carried = ordered[held * SORT_LANES : held * SORT_LANES + lanes]
    for i in range(lanes):
        # Adding 0 makes -0.0 and 0.0 one value: their order would depend on the algorithm.
        carried[i] = x[i] + 0.0 if x[i] == x[i] else np.inf
    for j in range(held):
        row = ordered[j * SORT_LANES : j * SORT_LANES + lanes]
        for i in range(lanes):
            low, value = row[i], carried[i]
            smaller = value < low
            row[i] = value if smaller else low
            carried[i] = low if smaller else value


@kernel
def emit_quantile(out: Floats, counts: Floats, ordered: Floats, share: float, least: float) -> None:
    for i in range(len(out)):
        n = counts[i]
        if n < least:
            out[i] = np.nan
            continue
        position = share * (n - 1.0)
        whole = math.floor(position)
        lower = ordered[int(whole) * SORT_LANES + i]
        upper = ordered[min(int(whole) + 1, int(n) - 1) * SORT_LANES + i]
        out[i] = lower + (upper - lower) * (position - whole)


@kernel
def quantiles(rows: Integers, shares: Floats, memory: Floats, at: Integers, start: int, back: int, lanes: int, ordered: Floats,
              scratch: Floats) -> None:  # fmt: skip
    """Quantiles of growing windows, by insertion into sorted lists that stand side by side."""
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
                insert(x, k, ordered, width)
                for i in range(width):
                    counts[i] += 1.0 if x[i] == x[i] else 0.0
                k += 1
            place = at[rows[row, OUT]] + first
            emit_quantile(memory[place : place + width], counts, ordered, shares[row], float(rows[row, LEAST]))
