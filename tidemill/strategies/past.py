"""What bars say up to a time: returns of the past, for strategies that size by risk.

A panel of close-to-close returns is made once; a window is a slice of it that ends with the bar of its time, so nothing later
can enter. A return reaches back to the symbol's own bar before, however many slots lie between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import InputError

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]


class PastReturns(NamedTuple):
    """times: epoch microseconds, ascending. symbols ascend. returns: float64 [times, symbols], NaN where there is none."""

    times: NDArray[np.int64]
    symbols: tuple[str, ...]
    returns: Floats

    def window(self, until: int, length: int) -> Floats:
        """The last `length` rows up to and with the time `until`; fewer where history is shorter."""
        stop = int(np.searchsorted(self.times, until, side="right"))
        return self.returns[max(stop - length, 0) : stop]


def past_returns(bars: pl.DataFrame) -> PastReturns:
    """The panel of adjusted `bars` (symbol, open_time, close) in any order. A close that is not above 0 gives no return.

    InputError without any bar.
    """
    import polars as pl

    if bars.is_empty():
        raise InputError("There are no bars to estimate risk from. Check the symbols and the dates.")
    rows = bars.select("symbol", pl.col("open_time").dt.epoch("us").alias("at"), pl.col("close").cast(pl.Float64))
    rows = rows.filter(pl.col("close").is_finite() & (pl.col("close") > 0.0)).sort("symbol", "at")
    change = (pl.col("close") / pl.col("close").shift(1).over("symbol") - 1.0).fill_null(float("nan"))
    times, symbols = rows["at"].unique().sort(), rows["symbol"].unique().sort()
    # Column by column: a sum over time then has the same bits whichever other symbols are there, and one over symbols is not
    # regrouped by a column that is empty so far.
    panel = np.full((len(times), len(symbols)), np.nan, order="F")
    codes = rows["symbol"].cast(pl.Enum(symbols)).to_physical().to_numpy()
    panel[np.searchsorted(times.to_numpy(), rows["at"].to_numpy()), codes] = rows.select(change).to_series().to_numpy()
    return PastReturns(times.to_numpy(), tuple(symbols), panel)


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
