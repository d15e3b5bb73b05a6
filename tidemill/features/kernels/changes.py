"""Windows over pairs of values: correlation of two nodes, changes of one node from bar to bar, distances to the mean.

Layout of lanes, scratch and memory: windows.py.
"""

import math

import numpy as np

from tidemill.features.arrays import Floats, Integers
from tidemill.features.kernel_cache import kernel
from tidemill.features.kernels.windows import (
    COUNT,
    S1,
    S2,
    SHIFT,
    SK,
    SKK,
    SKX,
    add_full_means,
    add_mean,
    bars,
    clear,
    count_full,
    enough,
    is_degenerate,
    newest_number,
)
from tidemill.features.opcodes import (
    BLOCK,
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

SHIFT_Y, SX, SY, SXX, SYY, SXY = 2 * BLOCK, 3 * BLOCK, 4 * BLOCK, 5 * BLOCK, 6 * BLOCK, 7 * BLOCK
RISES, FALLS, MOVES, ROSE, FELL = S1, S2, SK, SKK, SKX


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
def add_two_pairs(x: Floats, y: Floats, u: Floats, v: Floats, lanes: int, scratch: Floats) -> None:
    """Bar (x, y), then the one before it, (u, v)."""
    for i in range(lanes):
        shift, shift_y = scratch[SHIFT + i], scratch[SHIFT_Y + i]
        dx, dy, du, dv = x[i] - shift, y[i] - shift_y, u[i] - shift, v[i] - shift_y
        scratch[SX + i] = (scratch[SX + i] + dx) + du
        scratch[SY + i] = (scratch[SY + i] + dy) + dv
        scratch[SXX + i] = (scratch[SXX + i] + dx * dx) + du * du
        scratch[SYY + i] = (scratch[SYY + i] + dy * dy) + dv * dv
        scratch[SXY + i] = (scratch[SXY + i] + dx * dy) + du * dv


@kernel
def add_pairs(full: bool, memory: Floats, start: int, start_y: int, k: int, end: int, back: int, lanes: int,
              scratch: Floats) -> None:  # fmt: skip
    """Add bars k … end - 1 back."""
    while full and k + 2 <= end:
        x, y = bars(memory, start, k, back, lanes), bars(memory, start_y, k, back, lanes)
        u, v = bars(memory, start, k + 1, back, lanes), bars(memory, start_y, k + 1, back, lanes)
        add_two_pairs(x, y, u, v, lanes, scratch)
        k += 2
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
            n, sx, sy = scratch[COUNT + i], scratch[SX + i], scratch[SY + i]
            wide, high = n * scratch[SXX + i] - sx * sx, n * scratch[SYY + i] - sy * sy
            flat = is_degenerate(wide, n, n * scratch[SHIFT + i] + sx) or is_degenerate(high, n, n * scratch[SHIFT_Y + i] + sy)
            value = (n * scratch[SXY + i] - sx * sy) / (math.sqrt(wide) * math.sqrt(high))
            value = min(max(value, -1.0), 1.0) if value == value else value
            out[i] = enough(np.nan if flat else value, n, least)


@kernel
def add_moves(full: bool, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """Add the changes to bars k … end - 1 back: rises, falls and both."""
    while k < end:
        x, before = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        if full:
            for i in range(lanes):
                d = x[i] - before[i]
                scratch[RISES + i] += d if d >= 0.0 else 0.0
                scratch[FALLS + i] += -d if d <= 0.0 else 0.0
                scratch[MOVES + i] += math.fabs(d)
        else:
            for i in range(lanes):
                d = x[i] - before[i]
                number = d == d
                d = d if number else 0.0
                scratch[COUNT + i] += 1.0 if number else 0.0
                scratch[RISES + i] += d if d >= 0.0 else 0.0
                scratch[FALLS + i] += -d if d <= 0.0 else 0.0
                scratch[MOVES + i] += math.fabs(d)
        k += 1
    if full:
        for i in range(lanes):
            scratch[COUNT + i] = float(end)


@kernel
def add_directions(memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """Count the bars k … end - 1 back that rose, and that fell; a comparison with what is missing is false."""
    while k < end:
        x, before = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        for i in range(lanes):
            scratch[ROSE + i] += 1.0 if x[i] > before[i] else 0.0
            scratch[FELL + i] += 1.0 if x[i] < before[i] else 0.0
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
