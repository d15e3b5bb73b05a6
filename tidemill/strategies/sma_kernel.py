"""The compiled part of `sma_cross`, in a file of its own so that naming the strategy does not import numba.

Windows are summed anew for each bar, from newest to oldest and relative to the newest value (NUMBERS, Features: no running
sums), so constant prices give equal means and the bits do not depend on where history starts. A longer window goes on where a
shorter one ended, so one pass serves every length, with the same bits as a pass of its own.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry, kernel

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]
_MEANS_AT_ONCE = 1 << 30  # bytes of window means that a grid holds at a time


@kernel
def _reach_back(total: Floats, newest: Floats, prices: Floats, first: int, lag: int, until: int) -> None:
    """Add what lies `lag` … `until` − 1 bars back to every total, oldest last; four at a time, which spares memory traffic."""
    count = total.size
    while lag + 4 <= until:
        one, two = prices[first - lag : first - lag + count], prices[first - lag - 1 : first - lag - 1 + count]
        three, four = prices[first - lag - 2 : first - lag - 2 + count], prices[first - lag - 3 : first - lag - 3 + count]
        for t in range(count):
            base = newest[t]
            total[t] = (((total[t] + (one[t] - base)) + (two[t] - base)) + (three[t] - base)) + (four[t] - base)
        lag += 4
    while lag < until:
        one = prices[first - lag : first - lag + count]
        for t in range(count):
            total[t] += one[t] - newest[t]
        lag += 1


@kernel
def _longest(ends: Indices) -> int:
    longest, start = 0, 0
    for end in ends:
        longest = max(longest, end - start)
        start = end
    return longest


@kernel
def _signal(fast_mean: float, slow_mean: float, share: float) -> float:
    difference = fast_mean - slow_mean
    if difference != difference:
        return np.nan
    return share if difference > 0.0 else 0.0


@entry
def cross_signals(close: Floats, ends: Indices, fast: int, slow: int, share: Floats) -> Floats:
    """`share` where the fast mean lies above the slow one, 0 where it does not, NaN before `slow` bars or with a NaN in the
    window.

    close: all symbols one after the other, each in time order; `ends` holds where each stops. share: one for each bar, or for
    each bar of any symbol where all have equally many.
    """
    signals = np.full(close.size, np.nan)
    room = np.zeros((2, _longest(ends)))
    start, first = 0, slow - 1
    for end in ends:
        if end - start >= slow:
            prices = close[start:end]
            own = share[start:end] if share.size == close.size else share
            newest, out = prices[first:], signals[start + first : end]
            total, quick = room[0, : newest.size], room[1, : newest.size]
            total[:] = 0.0
            _reach_back(total, newest, prices, first, 1, fast)
            quick[:] = total
            _reach_back(total, newest, prices, first, fast, slow)
            for t in range(out.size):
                out[t] = _signal(quick[t] / fast, total[t] / slow, own[first + t])
        start = end
    return signals


@entry
def cross_slots(close: Floats, present: Flags, past: Floats, bars: Indices, fast: int, slow: int, weights: Floats) -> None:
    """`cross_signals` slot by slot, with the same bits: [slots, symbols], NaN where a symbol has no bar.

    past: its last `slow` closes, [symbols, slow], oldest where the next goes; bars: how many each symbol has had. Both go on.
    """
    listed = 0
    for j in range(bars.size):
        listed += bars[j] > 0
    for slot in range(close.shape[0]):
        for j in range(bars.size):
            if present[slot, j]:
                listed += bars[j] == 0
                past[j, bars[j] % slow] = close[slot, j]
                bars[j] += 1
        for j in range(bars.size):
            if present[slot, j] and bars[j] >= slow:
                weights[slot, j] = _newest_signal(past[j], bars[j] - 1, fast, slow, 1.0 / listed)


@kernel
def _newest_signal(past: Floats, newest: int, fast: int, slow: int, share: float) -> float:
    """Of the windows that end with the bar of this number."""
    base, total, quick = past[newest % slow], 0.0, 0.0
    for lag in range(1, slow):
        if lag == fast:
            quick = total
        total += past[(newest - lag) % slow] - base
    return _signal(quick / fast, total / slow, share)


@entry
def window_means(close: Floats, ends: Indices, lengths: Indices) -> Floats:
    """Means less the newest value, [lengths, bars], NaN before a window is full; `lengths` ascend, close and ends as above."""
    means = np.full((lengths.size, close.size), np.nan)
    room = np.zeros(_longest(ends))
    start = 0
    for end in ends:
        prices = close[start:end]
        # Each length has totals of its own start, so every one begins with the bars that it alone has room for.
        total, done, covered = room[: prices.size], 1, 0
        total[:] = 0.0
        for at in range(lengths.size):
            length = lengths[at]
            if length > prices.size:
                break
            drop = length - 1 - covered
            total = total[drop:]  # the first bars have no longer window
            covered = length - 1
            newest = prices[covered:]
            _reach_back(total, newest, prices, covered, done, length)
            done = length
            out = means[at, start + covered : end]
            for t in range(out.size):
                out[t] = total[t] / length
        start = end
    return means


@entry
def crossed(fast_means: Floats, slow_means: Floats, share: Floats) -> Floats:
    """`cross_signals` of two panels of window means, in their shape; share: one for each row."""
    rows, columns = fast_means.shape
    signals = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            signals[row, column] = _signal(fast_means[row, column], slow_means[row, column], share[row])
    return signals


def cross_grid(
    close: Floats, ends: Indices, grid: Sequence[tuple[int, int]], share: Floats, spread: Callable[[Floats], Floats]
) -> Iterator[Floats]:
    """The panel of targets of each (fast, slow) of `grid`, in order; equal to `spread(cross_signals(…))` to the bit.

    Each mean is worked out and spread once for all parameters that use it, as many as fit into memory at a time.
    """
    most = max(_MEANS_AT_ONCE // max(16 * close.size, 1), 2)
    at = 0
    while at < len(grid):
        lengths: set[int] = set()
        stop = at
        while stop < len(grid) and len(lengths.union(grid[stop])) <= most:
            lengths.update(grid[stop])
            stop += 1
        ordered = sorted(lengths)
        means = window_means(close, ends, np.array(ordered, dtype=np.int64))
        panels = {length: spread(means[number]) for number, length in enumerate(ordered)}
        del means
        for fast, slow in grid[at:stop]:
            yield crossed(panels[fast], panels[slow], share)
        at = stop
