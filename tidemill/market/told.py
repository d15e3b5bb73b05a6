"""Corporate actions as a feed tells them: each once, with the first bar of its symbol at which it is known."""

from datetime import datetime

import polars as pl

from tidemill.domain.intervals import epoch_microseconds
from tidemill.market.adjusting import ToldAction, late


def told_actions(bars: pl.DataFrame, actions: pl.DataFrame) -> dict[datetime, list[ToldAction]]:
    """Slot → the actions that are first known with the bar of their symbol there."""
    found: dict[datetime, list[ToldAction]] = {}
    for symbol, kind, ex_time, value, known in actions.iter_rows():
        own = bars.filter(symbol=symbol)
        reached = own.filter(pl.col("known_at") >= known)
        if reached.is_empty():
            continue
        slot = reached["open_time"].min()
        assert isinstance(slot, datetime)  # nosec B101  # a column of times
        before = own.filter((pl.col("open_time") < slot) & (pl.col("close") > 0.0)).select("open_time", "close")
        passed = {epoch_microseconds(at): close for at, close in before.iter_rows()}
        first = epoch_microseconds(own["open_time"].min())  # type: ignore[arg-type]  # a time
        now = late(ToldAction(symbol, kind, epoch_microseconds(ex_time), value, epoch_microseconds(known)), passed, first)
        if now is not None:
            found.setdefault(slot, []).append(now)
    return found
