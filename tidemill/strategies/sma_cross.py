"""The moving-average cross (NUMBERS, Fills and accounts): all in, long or flat.

Long from the bar at whose close the mean of the last `fast` closes lies above the mean of the last `slow`, flat from
the bar at which it does not; equal means flat. Windows count the symbol's own bars; before there are `slow` of them
nothing is asked. With n symbols each works with 1/n of equity, taken when it enters; in between the position is left
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy, require

if TYPE_CHECKING:
    import polars as pl


class SmaCrossParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lengths of the two means in bars, fast < slow."""

    fast: int = 10
    slow: int = 30

    def __post_init__(self) -> None:
        require(1 <= self.fast < self.slow <= 10_000, "fast must be at least 1 and below slow, and slow at most 10,000")


def _weigh(bars: pl.DataFrame, params: SmaCrossParams, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    from tidemill.strategies.sma_kernel import cross_signals

    runs = bars.get_column("symbol").rle().struct.unnest()
    symbols = runs.get_column("value")
    if symbols.n_unique() != len(symbols):
        raise InputError("Bars must be sorted by symbol and open_time.")
    ends = np.cumsum(runs.get_column("len").to_numpy(), dtype=np.int64)
    close = bars.get_column("close").cast(pl.Float64).to_numpy()
    signals = cross_signals(np.ascontiguousarray(close), ends, params.fast, params.slow)
    weight = pl.Series("weight", signals / max(len(symbols), 1))
    return bars.select("symbol", "open_time").with_columns(weight.fill_nan(None))


SMA_CROSS = Strategy(
    name="sma_cross",
    about="Hold a symbol while its fast moving average lies above its slow one.",
    needs="bars",
    params=SmaCrossParams,
    weigh=_weigh,
    resize=False,
)
