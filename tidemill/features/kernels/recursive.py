"""Operators that carry state from bar to bar. State place j of lane i lies at `state[j * rows + i * stride]`.

In a scan (stride 0) every lane is the next bar of one symbol; in a step (stride 1) lanes are symbols, and an absent one is left
alone.
A NaN input gives NaN and changes no state.
"""

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Flags, Floats
from tidemill.features.kernels.elementwise import finite


@kernel
def smooth_next(
    count: float, value: float, x: float, seed: float, parts: float, weight: float, skip: float
) -> tuple[float, float, float]:
    """State after x, and the output. The first `seed` values after `skip` are summed, then divided by `parts`."""
    if x != x:
        return count, value, np.nan
    count += 1.0
    if count > skip + seed:
        value += (x - value) * weight
        return count, value, value
    if count <= skip:
        return count, value, np.nan
    value += x
    if count < skip + seed:
        return count, value, np.nan
    value /= parts
    return count, value, value if seed == parts else np.nan


@kernel
def smooth(out: Floats, x: Floats, numbers: Floats, state: Floats, rows: int, stride: int, present: Flags) -> None:
    seed, parts, weight, skip = numbers[0], numbers[1], numbers[2], numbers[3]
    if stride == 0:  # state in registers: the chain of one symbol is bound by latency
        count, value = state[0], state[rows]
        missing = 0
        for i in range(len(x)):
            missing += x[i] != x[i]
        if count >= skip + seed and missing == 0:
            for i in range(len(out)):
                value += (x[i] - value) * weight
                out[i] = value
            state[0], state[rows] = count + len(out), value
            return
        for i in range(len(out)):
            count, value, out[i] = smooth_next(count, value, x[i], seed, parts, weight, skip)
        state[0], state[rows] = count, value
        return
    for i in range(len(out)):
        if present[i]:
            state[i], state[rows + i], out[i] = smooth_next(state[i], state[rows + i], x[i], seed, parts, weight, skip)


@kernel
def adaptive(
    out: Floats, x: Floats, start: Floats, weight: Floats, state: Floats, rows: int, stride: int, present: Flags
) -> None:
    for i in range(len(out)):
        if not present[i]:
            continue
        s = i * stride
        value = state[rows + s] if state[s] > 0.0 else start[i]
        value += (x[i] - value) * weight[i]
        out[i] = finite(value)
        if out[i] == out[i]:
            state[s], state[rows + s] = 1.0, value


@kernel
def cumulative(out: Floats, x: Floats, state: Floats, rows: int, stride: int, present: Flags) -> None:
    for i in range(len(out)):
        if not present[i]:
            continue
        s = i * stride
        total = finite(state[s] + x[i])
        out[i] = total
        if total == total:
            state[s] = total


@kernel
def age(out: Floats, state: Floats, stride: int, present: Flags) -> None:
    """How many bars the symbol has had."""
    for i in range(len(out)):
        if present[i]:
            state[i * stride] += 1.0
            out[i] = state[i * stride]


@kernel
def sar_next(bars: float, side: float, stop: float, extreme: float, factor: float, high_before: float,
             low_before: float, high: float, low: float, step: float, most: float) -> tuple[float, float, float,
             float, float]:  # fmt: skip
    """State after one bar, and the stop that held during it. `side` is 1 for long, -1 for short.

    Prices are looked at through `side`: `near` is what the stop guards (the low of a long), `far` what the trend reaches (its
    high).
    """
    if bars == 1.0:
        side = -1.0 if low_before - low > 0.0 and high - high_before < low_before - low else 1.0
        stop = low_before if side > 0.0 else high_before
        extreme = high if side > 0.0 else low
        factor = step
        high_before, low_before = high, low
    near, far = (low, high) if side > 0.0 else (high, low)
    near_before, far_before = (low_before, high_before) if side > 0.0 else (high_before, low_before)
    if side * (near - stop) <= 0.0:
        # The trend turned: the stop jumps to its extreme, not inside the last two bars, and restarts from this bar's price.
        now = side * max(side * extreme, side * far_before, side * far)
        follow = now + step * (near - now)
        return -side, side * max(side * follow, side * far_before, side * far), near, step, now
    now = stop
    if side * (far - extreme) > 0.0:
        extreme, factor = far, min(factor + step, most)
    follow = stop + factor * (extreme - stop)
    return side, side * min(side * follow, side * near_before, side * near), extreme, factor, now


@kernel
def sar(out: Floats, high: Floats, low: Floats, numbers: Floats, state: Floats, rows: int, stride: int, present: Flags) -> None:
    """Parabolic stop and reverse; a bar without a high or a low is passed over."""
    step, most = numbers[0], numbers[1]
    for i in range(len(out)):
        if not present[i]:
            continue
        out[i] = np.nan
        if high[i] != high[i] or low[i] != low[i]:
            continue
        s = state[i * stride :]
        if s[0] > 0.0:
            s[rows], s[2 * rows], s[3 * rows], s[4 * rows], out[i] = sar_next(
                s[0], s[rows], s[2 * rows], s[3 * rows], s[4 * rows], s[5 * rows], s[6 * rows], high[i], low[i], step, most
            )
        s[0], s[5 * rows], s[6 * rows] = min(s[0] + 1.0, 2.0), high[i], low[i]
