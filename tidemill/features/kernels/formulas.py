"""What follows from the sums of a window, once they are known. Blocks of lanes and single lanes share it, hence equal bits.

n: how many numbers the window holds. shift: what was taken off each value before it was summed. s1, s2: sums of the values and
of their squares. sk, skk, skx: sums of k, k² and k · value over the bars k ago.
"""

import math

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.kernels.elementwise import finite
from tidemill.features.opcodes import DEGENERATE


@kernel
def enough(value: float, count: float, least: float) -> float:
    """value, or NaN where the window holds fewer than `least` numbers or the value is infinite."""
    return finite(value) if count >= least else np.nan


@kernel
def is_degenerate(deviation: float, n: float, total: float) -> bool:
    """Whether the sample std is at most 1e-9 · |mean|, squared to spare a division. Also true for fewer than two numbers.

    deviation: n · Σx² - (Σx)². total: Σx.
    """
    least = DEGENERATE * total
    return not deviation * n > (n - 1.0) * (least * least)


@kernel
def mean_of(n: float, shift: float, s1: float) -> float:
    return shift + s1 / n


@kernel
def std_of(n: float, s1: float, s2: float, ddof: float) -> float:
    variance = (s2 - s1 * s1 / n) / (n - ddof)
    variance = variance if variance >= 0.0 or variance != variance else 0.0
    return math.sqrt(variance)


@kernel
def weighted_of(window: float, shift: float, s1: float, skx: float) -> float:
    """The mean with weights that fall by one a bar, from `window` at the newest."""
    return shift + (window * s1 - skx) / (window * (window + 1.0) / 2.0)


@kernel
def slope_of(n: float, s1: float, sk: float, skk: float, skx: float) -> float:
    """Of the line through the window with time t = -k, so that its value at the newest bar is its intercept."""
    return (sk * s1 - n * skx) / (n * skk - sk * sk)


@kernel
def residual_of(n: float, newest: float, s1: float, sk: float, slope: float) -> float:
    """newest: less the shift."""
    return newest - (s1 + slope * sk) / n


@kernel
def fit_of(n: float, shift: float, s1: float, s2: float, sk: float, skx: float, slope: float) -> float:
    """The share of the window's variance that lies in the line."""
    deviation = n * s2 - s1 * s1
    flat = is_degenerate(deviation, n, n * shift + s1)
    return np.nan if flat else slope * ((sk * s1 - n * skx) / deviation)


@kernel
def correlation_of(n: float, shift: float, shift_y: float, sx: float, sy: float, sxx: float, syy: float, sxy: float) -> float:
    wide, high = n * sxx - sx * sx, n * syy - sy * sy
    flat = is_degenerate(wide, n, n * shift + sx) or is_degenerate(high, n, n * shift_y + sy)
    value = (n * sxy - sx * sy) / (math.sqrt(wide) * math.sqrt(high))
    value = min(max(value, -1.0), 1.0) if value == value else value
    return np.nan if flat else value
