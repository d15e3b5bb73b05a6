"""What bars say up to a time: returns of the past, for strategies that size by risk.

A return reaches back to the symbol's own bar before, however many slots lie between. A slot without any price adds no row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidemill.strategies.base import Carried, carried

Floats = NDArray[np.float64]


class PastReturns:
    """The last `length` rows of returns of `symbols`, from `state` on."""

    def __init__(self, symbols: tuple[str, ...], length: int, state: Carried | None = None) -> None:
        self._length, self._last = length, carried(state, "last", symbols, np.nan)
        # Symbol by symbol: a sum over time then has the same bits whichever other symbols are there. Twice as long as a window,
        # so that one lies in a piece and is moved once in `length` slots.
        self._rows = np.full((len(symbols), 2 * length), np.nan)
        self._stop = 0
        if state is not None:
            kept = state.by_symbol["returns"].shape[0]
            self._rows[:, :kept] = carried(state, "returns", symbols, np.nan, (kept,)).T
            self._stop = kept

    def push(self, close: Floats) -> None:
        """Take the closes of a slot; what is not above 0 gives no return."""
        priced = np.isfinite(close) & (close > 0.0)
        if not priced.any():
            return
        if self._stop == 2 * self._length:
            self._rows[:, : self._length] = self._rows[:, self._length :]
            self._stop = self._length
        self._rows[:, self._stop] = np.where(priced, close / self._last - 1.0, np.nan)
        self._last = np.where(priced, close, self._last)
        self._stop += 1

    @property
    def window(self) -> Floats:
        """[rows, symbols], NaN where there is none; fewer rows than `length` where history is shorter."""
        return self._rows[:, max(self._stop - self._length, 0) : self._stop].T

    @property
    def arrays(self) -> dict[str, Floats]:
        """By symbol, for a state."""
        return {"last": self._last.copy(), "returns": self.window.copy()}


def volatility(window: Floats, least: int) -> Floats:
    """Standard deviation of each column over its known rows; NaN with fewer than `least` (2 at least) or without any spread."""
    known = np.isfinite(window)
    count = known.sum(axis=0)
    filled = np.where(known, window, 0.0)
    enough = count >= max(least, 2)
    number = np.where(enough, count, 2)
    mean = filled.sum(axis=0) / number
    spread = np.where(known, window - mean, 0.0)
    deviation = np.sqrt((spread * spread).sum(axis=0) / (number - 1))
    # Below this a spread is the rounding of prices that stand still, and its inverse would take the whole book.
    return np.where(enough & (deviation > 1e-8), deviation, np.nan)


def betas(window: Floats, least: int) -> Floats:
    """Beta of each column to the mean of all columns (the equal-weight market), over the rows in which both are known.

    NaN with fewer than `least` rows, or while the market stands still.
    """
    known = np.isfinite(window)
    there = known.sum(axis=1)
    market = np.where(there > 0, np.where(known, window, 0.0).sum(axis=1) / np.maximum(there, 1), np.nan)
    count = known.sum(axis=0)
    safe = np.maximum(count, 1)
    base = np.where(known, market[:, None], 0.0)
    base = np.where(known, base - base.sum(axis=0) / safe, 0.0)
    own = np.where(known, window, 0.0)
    own = np.where(known, own - own.sum(axis=0) / safe, 0.0)
    variance = (base * base).sum(axis=0)
    fine = (count >= max(least, 2)) & (variance > 1e-16)
    return np.where(fine, (base * own).sum(axis=0) / np.where(fine, variance, 1.0), np.nan)
