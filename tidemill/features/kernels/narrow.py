"""Scans of windows that miss no value, for one lane alone: the same arithmetic in the same order, with the sums in registers.

A stream of one symbol spends its time here; in the scans over many lanes each bar of a window would cost a loop of its own.
Each adds the bars k … end - 1 back, `back` apart, to the first lane of the scratch array.
"""

import math

from tidemill.features.arrays import Floats
from tidemill.features.kernel_cache import kernel
from tidemill.features.kernels.scratch import (
    FALLS,
    FELL,
    MOVES,
    RISES,
    ROSE,
    S1,
    S2,
    SHIFT,
    SHIFT_Y,
    SKX,
    SX,
    SXX,
    SXY,
    SY,
    SYY,
)
from tidemill.features.opcodes import LINES, SPREADS


@kernel
def add_one_moment(group: int, memory: Floats, start: int, k: int, end: int, back: int, scratch: Floats) -> None:
    shift, s1, s2, skx = scratch[SHIFT], scratch[S1], scratch[S2], scratch[SKX]
    if group < SPREADS:
        for older in range(k, end):
            s1 += memory[start - older * back] - shift
    elif group < LINES:
        for older in range(k, end):
            d = memory[start - older * back] - shift
            s1 += d
            s2 += d * d
    else:
        for older in range(k, end):
            d = memory[start - older * back] - shift
            s1 += d
            s2 += d * d
            skx += float(older) * d
    scratch[S1], scratch[S2], scratch[SKX] = s1, s2, skx


@kernel
def add_one_pair(memory: Floats, start: int, start_y: int, k: int, end: int, back: int, scratch: Floats) -> None:
    shift, shift_y, sx, sy = scratch[SHIFT], scratch[SHIFT_Y], scratch[SX], scratch[SY]
    sxx, syy, sxy = scratch[SXX], scratch[SYY], scratch[SXY]
    for older in range(k, end):
        dx, dy = memory[start - older * back] - shift, memory[start_y - older * back] - shift_y
        sx += dx
        sy += dy
        sxx += dx * dx
        syy += dy * dy
        sxy += dx * dy
    scratch[SX], scratch[SY], scratch[SXX], scratch[SYY], scratch[SXY] = sx, sy, sxx, syy, sxy


@kernel
def add_one_move(memory: Floats, start: int, k: int, end: int, back: int, scratch: Floats) -> None:
    rises, falls, moves, rose, fell = scratch[RISES], scratch[FALLS], scratch[MOVES], scratch[ROSE], scratch[FELL]
    x = memory[start - k * back]
    for older in range(k + 1, end + 1):
        before = memory[start - older * back]
        d = x - before
        rises += d if d > 0.0 else 0.0
        falls += -d if d < 0.0 else 0.0
        moves += math.fabs(d)
        rose += 1.0 if d > 0.0 else 0.0
        fell += 1.0 if d < 0.0 else 0.0
        x = before
    scratch[RISES], scratch[FALLS], scratch[MOVES], scratch[ROSE], scratch[FELL] = rises, falls, moves, rose, fell


@kernel
def find_one(sign: float, oldest: bool, memory: Floats, start: int, k: int, end: int, back: int, scratch: Floats) -> None:
    """S1, S2 := the greatest value times sign and how far back it stands, of equals the oldest or the newest."""
    best, place = scratch[S1], scratch[S2]
    for older in range(k, end):
        value = sign * memory[start - older * back]
        if value > best or (oldest and value == best):
            best, place = value, float(older)
    scratch[S1], scratch[S2] = best, place


@kernel
def rank_one(memory: Floats, start: int, k: int, end: int, back: int, scratch: Floats) -> None:
    """S1, S2 := how many values are below SHIFT and how many equal it."""
    mark, below, equal = scratch[SHIFT], scratch[S1], scratch[S2]
    for older in range(k, end):
        value = memory[start - older * back]
        below += 1.0 if value < mark else 0.0
        equal += 1.0 if value == mark else 0.0
    scratch[S1], scratch[S2] = below, equal
