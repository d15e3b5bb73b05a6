"""Predictions that stand while a market is closed: what a strategy sees of a panel whose symbols follow several calendars.

At each time at which anything is predicted, a symbol's prediction is that of its calendar's newest slot up to there. So a book
of coins and stocks ranks all of them on a Sunday too, the stocks by Friday's predictions, whose orders wait for Monday. A slot
of its own at which a symbol has no prediction still says that it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidemill.calendars import by_calendar, epochs, own_slots
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_KEYS = ("symbol", "open_time")


def standing(
    predictions: pl.DataFrame, instruments: Mapping[str, Instrument], interval: Interval, bars: pl.DataFrame | None
) -> pl.DataFrame:
    """`predictions` (symbol, open_time and others) and, for each time at which a calendar of theirs has no slot, the rows of
    its newest slot before; sorted by symbol and time. Unchanged where all symbols follow one calendar.

    bars: symbol, open_time of what was there, also where nothing was predicted or a prediction was rejected; None: the rows of
    `predictions` alone tell.
    """
    import polars as pl

    followed = {symbol: one.calendar for symbol, one in instruments.items()}
    if len(set(followed.values())) < 2:
        return predictions  # asked hundreds of times by a proof
    groups = by_calendar(predictions["symbol"].unique().sort(), followed)
    if len(groups) < 2:
        return predictions
    there = predictions.select(_KEYS)
    if bars is not None:
        there = pl.concat([there, bars.select("symbol", pl.col("open_time").cast(there.schema["open_time"]))])
    times = there["open_time"].unique().sort()
    asked = times.is_in(predictions["open_time"].unique().implode()).to_numpy()
    added = []
    for name, symbols in groups.items():
        own = pl.col("symbol").is_in(symbols)
        held = times.is_in(there.filter(own)["open_time"].unique().implode())
        slots = own_slots(name, interval, epochs(times), held.to_numpy())
        added.append(_added(predictions.filter(own), times, slots, asked))
    return pl.concat([predictions, *added]).sort(_KEYS)


def _added(own: pl.DataFrame, times: pl.Series, slots: NDArray[np.bool_], asked: NDArray[np.bool_]) -> pl.DataFrame:
    """The rows of `own`, which follow one calendar, that stand at those of `times` that are `asked` and no `slots` of it."""
    import numpy as np
    import polars as pl

    newest = np.maximum.accumulate(np.where(slots, np.arange(len(times)), -1))
    closed = np.flatnonzero(asked & ~slots & (newest >= 0))
    pairs = pl.DataFrame({"open_time": times.gather(newest[closed]), "closed": times.gather(closed)})
    return pairs.join(own, on="open_time").drop("open_time").rename({"closed": "open_time"}).select(own.columns)
