"""The compiled part of `sma_cross`, in a file of its own so that naming the strategy does not import numba."""

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry

Floats = NDArray[np.float64]


@entry
def cross_signals(close: Floats, ends: NDArray[np.int64], fast: int, slow: int) -> Floats:
    """1 where the fast mean lies above the slow one, 0 where it does not, NaN before `slow` bars or with a NaN in the
    window.

    close: all symbols one after the other, each in time order; `ends` holds where each stops. Windows are summed anew
    for each bar, from newest to oldest and relative to the newest value (NUMBERS, Features: no running sums), so
    constant prices give equal means and the bits do not depend on where history starts. Both means share one pass,
    since the fast window is the head of the slow one.
    """
    signals = np.full(close.size, np.nan)
    start = 0
    for end in ends:
        length = end - start
        if length >= slow:
            prices = close[start:end]
            count = length - slow + 1
            total = np.zeros(count)
            quick = np.zeros(count)
            for back in range(1, slow):
                if back == fast:
                    for t in range(count):
                        quick[t] = total[t]
                for t in range(count):
                    total[t] += prices[slow - 1 + t - back] - prices[slow - 1 + t]
            for t in range(count):
                difference = quick[t] / fast - total[t] / slow
                if difference == difference:
                    signals[start + slow - 1 + t] = 1.0 if difference > 0.0 else 0.0
        start = end
    return signals
