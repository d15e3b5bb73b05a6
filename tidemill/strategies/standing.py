"""Predictions that stand while a market is closed: what a strategy sees of a panel whose symbols follow several calendars.

At each time at which anything is predicted, a symbol's prediction is that of its calendar's newest slot up to there. So a book
of coins and stocks ranks all of them on a Sunday too, the stocks by Friday's predictions, whose orders wait for Monday. A slot
of its own at which a symbol has no prediction still says that it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidemill.calendars import by_calendar, own_slots
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument

if TYPE_CHECKING:
    import polars as pl

_KEYS = ("symbol", "open_time")


def standing(predictions: pl.DataFrame, instruments: Mapping[str, Instrument], interval: Interval) -> pl.DataFrame:
    """`predictions` (symbol, open_time and others) and, for each time at which a calendar of theirs has no slot, the rows of
    its newest slot before; sorted by symbol and time. Unchanged where all symbols follow one calendar.
    """
    import polars as pl

    followed = {symbol: one.calendar for symbol, one in instruments.items()}
    groups = by_calendar(predictions["symbol"].unique().sort(), followed)
    if len(groups) < 2:
        return predictions
    times = predictions["open_time"].unique().sort()
    added = [_added(predictions.filter(pl.col("symbol").is_in(own)), times, name, interval) for name, own in groups.items()]
    return pl.concat([predictions, *added]).sort(_KEYS)


def _added(own: pl.DataFrame, times: pl.Series, name: str, interval: Interval) -> pl.DataFrame:
    """The rows of `own`, which follow one calendar, that stand at those of `times` that are no slots of it."""
    import numpy as np
    import polars as pl

    opens = times.cast(pl.Datetime("us")).to_physical().to_numpy()
    slots = own_slots(name, interval, opens, times.is_in(own["open_time"].unique().implode()).to_numpy())
    newest = np.maximum.accumulate(np.where(slots, np.arange(len(opens)), -1))
    closed = np.flatnonzero(~slots & (newest >= 0))
    pairs = pl.DataFrame({"open_time": times.gather(newest[closed]), "closed": times.gather(closed)})
    return pairs.join(own, on="open_time").drop("open_time").rename({"closed": "open_time"}).select(own.columns)
