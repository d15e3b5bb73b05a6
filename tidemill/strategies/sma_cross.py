"""The moving-average cross (NUMBERS, Fills and accounts): all in, long or flat.

Long from the bar at whose close the mean of the last `fast` closes lies above the mean of the last `slow`, flat from
the bar at which it does not; equal means flat. Windows count the symbol's own bars; before there are `slow` of them
nothing is asked. Each symbol works with 1/n of equity, taken when it enters, n being the symbols that have had a bar by then;
in between the position is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy, closes, equal_shares, require

if TYPE_CHECKING:
    import polars as pl

    from tidemill.strategies.base import Floats, Indices


class SmaCrossParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lengths of the two means in bars, fast < slow."""

    fast: int = 10
    slow: int = 30

    def __post_init__(self) -> None:
        require(1 <= self.fast < self.slow <= 10_000, "fast must be at least 1 and below slow, and slow at most 10,000")


def _weigh(bars: pl.DataFrame, params: SmaCrossParams, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    close, ends = closes(bars)
    times = bars.get_column("open_time").to_physical().to_numpy()
    share = equal_shares(times[np.append(0, ends[:-1])] if len(times) else times, times)
    weight = pl.Series("weight", _signals(close, ends, params, share))
    return bars.select("symbol", "open_time").with_columns(weight.fill_nan(None))


def _signals(close: Floats, ends: Indices, params: SmaCrossParams, share: Floats) -> Floats:
    from tidemill.strategies.sma_kernel import cross_signals

    return cross_signals(close, ends, params.fast, params.slow, share)


def _grid(
    close: Floats, ends: Indices, grid: Sequence[SmaCrossParams], share: Floats, spread: Callable[[Floats], Floats]
) -> Iterator[Floats]:
    from tidemill.strategies.sma_kernel import cross_grid

    return cross_grid(close, ends, [(params.fast, params.slow) for params in grid], share, spread)


STRATEGY = Strategy(
    name="sma_cross",
    about="Hold a symbol while its fast moving average lies above its slow one.",
    needs="bars",
    params=SmaCrossParams,
    weigh=_weigh,
    resize=False,
    signals=_signals,
    grid=_grid,
)
