"""The average price of a bar, by one rule for batch and stream."""

import numpy as np

from tidemill.features.arrays import Floats


def average_price(high: Floats, low: Floats, close: Floats, volume: Floats, quote_volume: Floats | None = None) -> Floats:
    """Volume-weighted average price of each bar: quote volume / volume, and (high + low + close) / 3 where that is not known.

    Not known: quote_volume is missing or NaN, volume is not positive, or the quotient lies outside the bar's range by more than
    a
    billionth, as it does when prices were adjusted and the quote volume was not. Element-wise, any shape; NaN where a price is.
    """
    with np.errstate(all="ignore"):  # what overflows becomes NaN in the kernels
        typical = (high + low + close) / 3.0
        if quote_volume is None:
            return typical
        traded = quote_volume / volume
        known = (volume > 0.0) & (traded >= low * (1.0 - 1e-9)) & (traded <= high * (1.0 + 1e-9))
    return np.where(known, traded, typical)
