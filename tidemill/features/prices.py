"""The average price of a bar, by one rule for batch and stream."""

import numpy as np

from tidemill.compiled import entry, kernel
from tidemill.features.arrays import Floats


def average_price(high: Floats, low: Floats, close: Floats, volume: Floats, quote_volume: Floats | None = None) -> Floats:
    """Volume-weighted average price of each bar: quote volume / volume, and (high + low + close) / 3 where that is not known.

    Not known: quote_volume is missing or NaN, volume is not positive, or the quotient lies outside the bar's range by more than
    a
    billionth, as it does when prices were adjusted and the quote volume was not. Element-wise, any shape; NaN where a price is.
    """
    if quote_volume is None:
        with np.errstate(all="ignore"):  # what overflows becomes NaN in the kernels
            return (high + low + close) / 3.0
    columns = [
        np.ascontiguousarray(values, dtype=np.float64).reshape(-1) for values in (high, low, close, volume, quote_volume)
    ]
    made = np.empty(columns[0].size)
    _averages(columns[0], columns[1], columns[2], columns[3], columns[4], made)
    return made.reshape(np.shape(high))


@kernel
def average_of(high: float, low: float, close: float, volume: float, quote_volume: float) -> float:
    """Of one bar; see `average_price`."""
    traded = quote_volume / volume
    known = volume > 0.0 and traded >= low * (1.0 - 1e-9) and traded <= high * (1.0 + 1e-9)
    return traded if known else (high + low + close) / 3.0


@entry
def _averages(high: Floats, low: Floats, close: Floats, volume: Floats, quote_volume: Floats, made: Floats) -> None:
    for at in range(made.size):
        made[at] = average_of(high[at], low[at], close[at], volume[at], quote_volume[at])
