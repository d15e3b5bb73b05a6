"""Windows of one lane that miss no value: scanned newest to oldest, with the sums in registers.

Each function takes the EMIT rows first … last - 1 of a group, shortest window first, and writes their values.
"""

import math
from typing import NamedTuple

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Floats, Integers
from tidemill.features.kernels.formulas import (
    correlation_of,
    enough,
    fit_of,
    mean_of,
    residual_of,
    slope_of,
    std_of,
    weighted_of,
)
from tidemill.features.kernels.sorting import listed
from tidemill.features.opcodes import (
    EMIT_FALLS,
    EMIT_MEAN,
    EMIT_MOVES,
    EMIT_PLACE,
    EMIT_RESID,
    EMIT_RISES,
    EMIT_ROSE,
    EMIT_SLOPE,
    EMIT_STD,
    EMIT_SUM,
    FIELDS,
    FIGURES,
    LEAST,
    OPCODE,
    OUT,
    SLOT,
    SUMS,
    WINDOW,
)


class Lane(NamedTuple):
    """What one lane reads, as pointers. Its value k bars ago lies k · back before its newest; its lists have rows `back` apart.

    clean: see `execute.settle`; there is none unless `counted`.
    """

    code: Integers
    numbers: Floats
    memory: Floats
    at: Integers
    lists: Floats
    clean: Integers
    counted: bool
    back: int


@kernel
def field(lane: Lane, row: int, name: int) -> int:
    return int(lane.code[row * FIELDS + name])


@kernel
def figure(lane: Lane, row: int) -> float:
    """The first number of a row."""
    return float(lane.numbers[row * FIGURES])


@kernel
def put(lane: Lane, row: int, value: float, count: float) -> None:
    lane.memory[lane.at[field(lane, row, OUT)]] = enough(value, count, float(field(lane, row, LEAST)))


@kernel
def moments_one(group: int, lane: Lane, first: int, last: int, start: int) -> None:
    """SUMS, MEANS, SPREADS or LINES. Sums that a group does without cost nothing here: the chains run side by side."""
    memory, back, newest = lane.memory, lane.back, lane.memory[start]
    shift = 0.0 if group == SUMS else newest
    s1 = s2 = skx = 0.0
    k = 0
    for row in range(first, last):
        end, kind = field(lane, row, WINDOW), field(lane, row, OPCODE)
        for older in range(k, end):
            d = memory[start - older * back] - shift
            s1 += d
            s2 += d * d
            skx += float(older) * d
        k, n = end, float(end)
        if EMIT_SLOPE <= kind <= EMIT_RESID:
            sk, skk = n * (n - 1.0) / 2.0, (n - 1.0) * n * (2.0 * n - 1.0) / 6.0
            value = slope = slope_of(n, s1, sk, skk, skx)
            if kind == EMIT_RESID:
                value = residual_of(n, newest - shift, s1, sk, slope)
            elif kind != EMIT_SLOPE:
                value = fit_of(n, shift, s1, s2, sk, skx, slope)
        elif kind == EMIT_MEAN:
            value = mean_of(n, shift, s1)
        elif kind == EMIT_STD:
            value = std_of(n, s1, s2, figure(lane, row))
        elif kind == EMIT_SUM:
            value = s1
        else:
            value = weighted_of(n, shift, s1, skx)
        put(lane, row, value, n)


@kernel
def pairs_one(lane: Lane, first: int, last: int, start: int, start_y: int) -> None:
    memory, back, shift, shift_y = lane.memory, lane.back, lane.memory[start], lane.memory[start_y]
    sx = sy = sxx = syy = sxy = 0.0
    k = 0
    for row in range(first, last):
        end = field(lane, row, WINDOW)
        for older in range(k, end):
            dx, dy = memory[start - older * back] - shift, memory[start_y - older * back] - shift_y
            sx += dx
            sy += dy
            sxx += dx * dx
            syy += dy * dy
            sxy += dx * dy
        k, n = end, float(end)
        put(lane, row, correlation_of(n, shift, shift_y, sx, sy, sxx, syy, sxy), n)


@kernel
def changes_one(lane: Lane, first: int, last: int, start: int, age: int) -> None:
    memory, back, ages = lane.memory, lane.back, lane.memory[age]
    rises = falls = moves = rose = fell = 0.0
    k = 0
    for row in range(first, last):
        end, kind = field(lane, row, WINDOW), field(lane, row, OPCODE)
        for older in range(k, end):
            d = memory[start - older * back] - memory[start - (older + 1) * back]
            rises += d if d > 0.0 else 0.0
            falls += -d if d < 0.0 else 0.0
            moves += math.fabs(d)
            rose += 1.0 if d > 0.0 else 0.0
            fell += 1.0 if d < 0.0 else 0.0
        k, n = end, float(end)
        if kind <= EMIT_MOVES:
            put(lane, row, rises if kind == EMIT_RISES else falls if kind == EMIT_FALLS else moves, n)
        else:
            held = ages if ages < n else n
            put(lane, row, (rose if kind == EMIT_ROSE else fell) / held, held)


@kernel
def extremes_one(sign: float, lane: Lane, first: int, last: int, start: int) -> None:
    memory, back, best = lane.memory, lane.back, -np.inf
    k = 0
    for row in range(first, last):
        end = field(lane, row, WINDOW)
        for older in range(k, end):
            value = sign * memory[start - older * back]
            best = value if value > best else best
        k = end
        put(lane, row, sign * best, float(end))


@kernel
def places_one(sign: float, oldest: bool, lane: Lane, first: int, last: int, start: int, age: int) -> None:
    """Of equals the oldest or the newest. A branch, not a choice of values: a new extreme is rare, and foreseen as such."""
    memory, back, ages, best, place = lane.memory, lane.back, lane.memory[age], -np.inf, 0
    k = 0
    for row in range(first, last):
        end = field(lane, row, WINDOW)
        for older in range(k, end):
            value = sign * memory[start - older * back]
            if value > best or (oldest and value == best):
                best, place = value, older
        k, n, far = end, float(end), float(place)
        held = ages if ages < n else n
        put(lane, row, held - far if field(lane, row, OPCODE) == EMIT_PLACE else far, n)


@kernel
def ranks_one(lane: Lane, first: int, last: int, start: int) -> None:
    memory, back, mark = lane.memory, lane.back, lane.memory[start]
    below = equal = k = 0
    for row in range(first, last):
        end = field(lane, row, WINDOW)
        for older in range(k, end):
            value = memory[start - older * back]
            below += value < mark
            equal += value == mark
        k, n = end, float(end)
        put(lane, row, (float(below) + (float(equal) + 1.0) / 2.0) / n, n)


@kernel
def exchange_one(lists: Floats, first: int, back: int, window: int, leaving: float, coming: float) -> None:
    """`sorting.exchange_rows` for one list that begins at `first`."""
    left = -np.inf
    for j in range(1, window + 1):
        row = first + j * back
        here, above = lists[row], lists[row + back]
        right = here if here < leaving else above
        low = right if right < coming else coming
        lists[row] = left if left > low else low
        left = right


@kernel
def quantiles_one(lane: Lane, first: int, last: int, start: int) -> None:
    memory, back, moved = lane.memory, lane.back, -1
    for row in range(first, last):
        window, slot = field(lane, row, WINDOW), field(lane, row, SLOT) * back
        if slot != moved:
            exchange_one(lane.lists, slot, back, window, listed(memory[start - window * back]), listed(memory[start]))
            moved = slot
        position = figure(lane, row) * (float(window) - 1.0)
        whole = int(position)
        lower, upper = lane.lists[slot + (1 + whole) * back], lane.lists[slot + (1 + min(whole + 1, window - 1)) * back]
        put(lane, row, lower + (upper - lower) * (position - float(whole)), float(window))
