"""Bars that the calendar of a symbol expects and its history lacks."""

from datetime import datetime

import polars as pl

from tidemill.calendars import Calendar, Followed, by_calendar, calendar_named
from tidemill.domain.intervals import Interval

_TIME = pl.Datetime("us", "UTC")
GAP_SCHEMA = pl.Schema({"symbol": pl.String(), "start": _TIME, "end": _TIME, "missing": pl.Int64()})


def find_gaps(bars: pl.DataFrame, interval: Interval, calendar: Followed) -> pl.DataFrame:
    """Runs of missing bars inside each symbol's life, from its first bar to its last: a frame of GAP_SCHEMA, sorted.

    bars: symbol, open_time. calendar: that of all symbols, or of each. start: the first missing open time; end: the open
    time of the next bar that is there; missing: how many open times between them the calendar expects. Bars at times that it
    does not expect neither fill nor make a gap.
    """
    held = bars.select("symbol", "open_time").drop_nulls()
    groups = by_calendar(held["symbol"].unique(), calendar)
    if len(groups) == 1:
        return _gaps(held, interval, calendar_named(*groups))
    parts = [_gaps(held.filter(pl.col("symbol").is_in(own)), interval, calendar_named(name)) for name, own in groups.items()]
    return pl.concat([pl.DataFrame(schema=GAP_SCHEMA), *parts]).sort("symbol", "start")


def _gaps(held: pl.DataFrame, interval: Interval, own: Calendar) -> pl.DataFrame:
    first, last = held["open_time"].min(), held["open_time"].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return pl.DataFrame(schema=GAP_SCHEMA)
    slots = own.slots(interval, first, last + interval.delta).to_frame().with_row_index("slot")
    placed = held.join(slots.with_columns(pl.col("slot").cast(pl.Int64)), on="open_time")
    # Who has as many bars as slots has no gap, and that is nearly everybody: only the others are put in order and compared.
    life = placed.group_by("symbol").agg(
        (pl.col("slot").max() - pl.col("slot").min() + 1 - pl.col("slot").n_unique()).alias("lacking")
    )
    lacking = life.filter(pl.col("lacking") > 0).select("symbol")
    placed = placed.join(lacking, on="symbol", how="semi").unique().sort("symbol", "slot")
    jumps = placed.with_columns(
        following=pl.col("slot").shift(-1).over("symbol"), end=pl.col("open_time").shift(-1).over("symbol")
    ).filter(pl.col("following") - pl.col("slot") > 1)
    starts = slots.select((pl.col("slot").cast(pl.Int64) - 1).alias("slot"), pl.col("open_time").alias("start"))
    return (
        jumps.join(starts, on="slot")
        .select("symbol", "start", "end", (pl.col("following") - pl.col("slot") - 1).alias("missing"))
        .sort("symbol", "start")
    )
