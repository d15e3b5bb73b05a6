"""Windows over pairs of values: correlation of two nodes, changes of one node from bar to bar, distances to the mean.

Layout of lanes, scratch and memory: windows.py.
"""

import math

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Floats, Integers
from tidemill.features.kernels.formulas import correlation_of, enough
from tidemill.features.kernels.scratch import (
    COUNT,
    FALLS,
    FELL,
    MOVES,
    RISES,
    ROSE,
    S1,
    S2,
    SHIFT,
    SHIFT_Y,
    SK,
    SKX,
    SX,
    SXX,
    SXY,
    SY,
    SYY,
)
from tidemill.features.kernels.windows import (
    add_full_means,
    add_mean,
    bars,
    clear,
    count_full,
    newest_number,
)
from tidemill.features.opcodes import (
    EMIT_FALLS,
    EMIT_FELL,
    EMIT_MOVES,
    EMIT_RISES,
    EMIT_ROSE,
    LEAST,
    OPCODE,
    OUT,
    WINDOW,
)


@kernel
def newest_pair(memory: Floats, start: int, start_y: int, back: int, window: int, lanes: int, scratch: Floats) -> None:
    """SHIFT, SHIFT_Y := the newest values of a bar where both are numbers."""
    for i in range(lanes):
        scratch[SHIFT + i] = np.nan
        scratch[SHIFT_Y + i] = np.nan
    k, missing = 0, 1
    while missing > 0 and k < window:
        x, y = bars(memory, start, k, back, lanes), bars(memory, start_y, k, back, lanes)
        missing = 0
        for i in range(lanes):
            shift, shift_y = scratch[SHIFT + i], scratch[SHIFT_Y + i]
            take = shift != shift and x[i] == x[i] and y[i] == y[i]
            scratch[SHIFT + i] = x[i] if take else shift
            scratch[SHIFT_Y + i] = y[i] if take else shift_y
            missing += shift != shift and not take
        k += 1


@kernel
def add_pair(x: Floats, y: Floats, lanes: int, scratch: Floats) -> None:
    for i in range(lanes):
        dx, dy = x[i] - scratch[SHIFT + i], y[i] - scratch[SHIFT_Y + i]
        both = dx == dx and dy == dy
        dx, dy = dx if both else 0.0, dy if both else 0.0
        scratch[COUNT + i] += 1.0 if both else 0.0
        scratch[SX + i] += dx
        scratch[SY + i] += dy
        scratch[SXX + i] += dx * dx
        scratch[SYY + i] += dy * dy
        scratch[SXY + i] += dx * dy


@kernel
def add_full_pair(x: Floats, y: Floats, lanes: int, scratch: Floats) -> None:
    for i in range(lanes):
        dx, dy = x[i] - scratch[SHIFT + i], y[i] - scratch[SHIFT_Y + i]
        scratch[SX + i] += dx
        scratch[SY + i] += dy
        scratch[SXX + i] += dx * dx
        scratch[SYY + i] += dy * dy
        scratch[SXY + i] += dx * dy


@kernel
def add_four_pairs(memory: Floats, start: int, start_y: int, k: int, back: int, lanes: int, scratch: Floats) -> None:
    """Bars k … k + 3 back, none missing; four at a time spares loads and stores, in the same order."""
    a, b = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
    c, e = bars(memory, start, k + 2, back, lanes), bars(memory, start, k + 3, back, lanes)
    f, g = bars(memory, start_y, k, back, lanes), bars(memory, start_y, k + 1, back, lanes)
    h, j = bars(memory, start_y, k + 2, back, lanes), bars(memory, start_y, k + 3, back, lanes)
    for i in range(lanes):
        shift, shift_y = scratch[SHIFT + i], scratch[SHIFT_Y + i]
        p, q, r, t = a[i] - shift, b[i] - shift, c[i] - shift, e[i] - shift
        u, v, w, z = f[i] - shift_y, g[i] - shift_y, h[i] - shift_y, j[i] - shift_y
        scratch[SX + i] = (((scratch[SX + i] + p) + q) + r) + t
        scratch[SY + i] = (((scratch[SY + i] + u) + v) + w) + z
        scratch[SXX + i] = (((scratch[SXX + i] + p * p) + q * q) + r * r) + t * t
        scratch[SYY + i] = (((scratch[SYY + i] + u * u) + v * v) + w * w) + z * z
        scratch[SXY + i] = (((scratch[SXY + i] + p * u) + q * v) + r * w) + t * z


@kernel
def add_pairs(full: bool, memory: Floats, start: int, start_y: int, k: int, end: int, back: int, lanes: int,
              scratch: Floats) -> None:  # fmt: skip
    """Add bars k … end - 1 back."""
    while full and k + 4 <= end:
        add_four_pairs(memory, start, start_y, k, back, lanes, scratch)
        k += 4
    while k < end:
        x, y = bars(memory, start, k, back, lanes), bars(memory, start_y, k, back, lanes)
        if full:
            add_full_pair(x, y, lanes, scratch)
        else:
            add_pair(x, y, lanes, scratch)
        k += 1
    if full:
        for i in range(lanes):
            scratch[COUNT + i] = float(end)


@kernel
def pairs(rows: Integers, memory: Floats, at: Integers, start: int, start_y: int, back: int, lanes: int, full: bool,
          scratch: Floats) -> None:  # fmt: skip
    """Correlation of two nodes over growing windows."""
    clear(scratch, COUNT, SXY, lanes)
    newest_pair(memory, start, start_y, back, rows[-1, WINDOW], lanes, scratch)
    k = 0
    for row in range(len(rows)):
        add_pairs(full, memory, start, start_y, k, rows[row, WINDOW], back, lanes, scratch)
        k = rows[row, WINDOW]
        place, least = at[rows[row, OUT]], float(rows[row, LEAST])
        out = memory[place : place + lanes]
        for i in range(lanes):
            n = scratch[COUNT + i]
            value = correlation_of(
                n, scratch[SHIFT + i], scratch[SHIFT_Y + i], scratch[SX + i], scratch[SY + i], scratch[SXX + i],
                scratch[SYY + i], scratch[SXY + i],
            )  # fmt: skip
            out[i] = enough(value, n, least)


@kernel
def rise(x: float, before: float) -> float:
    d = x - before
    return d if d > 0.0 else 0.0


@kernel
def add_four_moves(memory: Floats, start: int, k: int, back: int, lanes: int, scratch: Floats) -> None:
    """The changes to bars k … k + 3 back, none missing."""
    a, b = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
    c, e = bars(memory, start, k + 2, back, lanes), bars(memory, start, k + 3, back, lanes)
    f = bars(memory, start, k + 4, back, lanes)
    for i in range(lanes):
        p, q, r, t, u = a[i], b[i], c[i], e[i], f[i]
        rises, falls, moves = scratch[RISES + i], scratch[FALLS + i], scratch[MOVES + i]
        scratch[RISES + i] = (((rises + rise(p, q)) + rise(q, r)) + rise(r, t)) + rise(t, u)
        scratch[FALLS + i] = (((falls + rise(q, p)) + rise(r, q)) + rise(t, r)) + rise(u, t)
        scratch[MOVES + i] = (((moves + math.fabs(p - q)) + math.fabs(q - r)) + math.fabs(r - t)) + math.fabs(t - u)


@kernel
def add_move(x: Floats, before: Floats, lanes: int, scratch: Floats) -> None:
    """One change, passed over where either value is missing."""
    for i in range(lanes):
        d = x[i] - before[i]
        number = d == d
        d = d if number else 0.0
        scratch[COUNT + i] += 1.0 if number else 0.0
        scratch[RISES + i] += d if d > 0.0 else 0.0
        scratch[FALLS + i] += -d if d < 0.0 else 0.0
        scratch[MOVES + i] += math.fabs(d)


@kernel
def add_moves(full: bool, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """Add the changes to bars k … end - 1 back: rises, falls and both."""
    while full and k + 4 <= end:
        add_four_moves(memory, start, k, back, lanes, scratch)
        k += 4
    while k < end:
        add_move(bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes), lanes, scratch)
        k += 1
    if full:
        for i in range(lanes):
            scratch[COUNT + i] = float(end)


@kernel
def above(x: float, y: float) -> float:
    return 1.0 if x > y else 0.0


@kernel
def add_directions(memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """Count the bars k … end - 1 back that rose, and that fell; a comparison with what is missing is false."""
    while k + 4 <= end:
        a, b = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        c, e = bars(memory, start, k + 2, back, lanes), bars(memory, start, k + 3, back, lanes)
        f = bars(memory, start, k + 4, back, lanes)
        for i in range(lanes):
            p, q, r, t, u = a[i], b[i], c[i], e[i], f[i]
            scratch[ROSE + i] += (above(p, q) + above(q, r)) + (above(r, t) + above(t, u))
            scratch[FELL + i] += (above(q, p) + above(r, q)) + (above(t, r) + above(u, t))
        k += 4
    while k < end:
        x, before = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        for i in range(lanes):
            scratch[ROSE + i] += above(x[i], before[i])
            scratch[FELL + i] += above(before[i], x[i])
        k += 1


@kernel
def emit_change(kind: int, out: Floats, ages: Floats, window: float, least: float, scratch: Floats) -> None:
    """A sum needs numbers; a share counts every bar that there is in the window."""
    if kind <= EMIT_MOVES:
        source = RISES if kind == EMIT_RISES else FALLS if kind == EMIT_FALLS else MOVES
        for i in range(len(out)):
            out[i] = enough(scratch[source + i], scratch[COUNT + i], least)
        return
    source = ROSE if kind == EMIT_ROSE else FELL
    for i in range(len(out)):
        held = ages[i] if ages[i] < window else window
        out[i] = enough(scratch[source + i] / held, held, least)


@kernel
def changes(rows: Integers, memory: Floats, at: Integers, start: int, age: int, back: int, lanes: int, full: bool,
            scratch: Floats) -> None:  # fmt: skip
    """Sums over the differences of one node from bar to bar; `age` is the place of the node that counts a symbol's bars.

    full: no value is missing from the longest window and the bar before it.
    """
    moving = directed = False
    for row in range(len(rows)):
        moving = moving or rows[row, OPCODE] <= EMIT_MOVES
        directed = directed or EMIT_ROSE <= rows[row, OPCODE] <= EMIT_FELL
    clear(scratch, COUNT, SKX, lanes)
    ages = memory[age : age + lanes]
    k = 0
    for row in range(len(rows)):
        end = rows[row, WINDOW]
        if moving and end > k:
            add_moves(full, memory, start, k, end, back, lanes, scratch)
        if directed and end > k:
            add_directions(memory, start, k, end, back, lanes, scratch)
        k = end
        place, least = at[rows[row, OUT]], float(rows[row, LEAST])
        emit_change(rows[row, OPCODE], memory[place : place + lanes], ages, float(end), least, scratch)


@kernel
def deviations(rows: Integers, memory: Floats, at: Integers, start: int, back: int, lanes: int, full: bool,
               scratch: Floats) -> None:  # fmt: skip
    """Mean absolute distance to the window's mean: one scan for the mean, one for the distances."""
    newest_number(memory, start, back, rows[-1, WINDOW], lanes, scratch)
    for row in range(len(rows)):
        window, least, place = rows[row, WINDOW], float(rows[row, LEAST]), at[rows[row, OUT]]
        clear(scratch, COUNT, S2, lanes)
        if full:
            add_full_means(memory, start, 0, window, back, lanes, scratch)
            count_full(window, lanes, scratch)
        else:
            for k in range(window):
                add_mean(bars(memory, start, k, back, lanes), lanes, scratch)
        for i in range(lanes):
            scratch[SK + i] = scratch[S1 + i] / scratch[COUNT + i]
        for k in range(window):
            x = bars(memory, start, k, back, lanes)
            for i in range(lanes):
                distance = math.fabs((x[i] - scratch[SHIFT + i]) - scratch[SK + i])
                scratch[S2 + i] += distance if distance == distance else 0.0
        out = memory[place : place + lanes]
        for i in range(lanes):
            out[i] = enough(scratch[S2 + i] / scratch[COUNT + i], scratch[COUNT + i], least)
