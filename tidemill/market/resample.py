"""Longer bars from shorter ones. Bars without volume take no part: only so are the exchange's own longer bars met exactly."""

from datetime import datetime

import numpy as np
import polars as pl

from tidemill.calendars import ALWAYS, Calendar, Followed, by_calendar, calendar_named
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS

_KEY = ["symbol", "bucket"]


def resample(
    bars: pl.DataFrame,
    from_interval: Interval,
    to_interval: Interval,
    *,
    until: datetime | None = None,
    calendar: Followed = ALWAYS,
) -> pl.DataFrame:
    """Bars of `to_interval` (BAR_COLUMNS, sorted) from bars of `from_interval`, a divisor of it; else InputError.

    A bucket is the half-open range [open_time, open_time + to_interval). Open, high, low and close are those of its bars that
    have volume; where none has, those of all its bars (the exchange repeats the last close there). Volumes are summed;
    quote_volume is null where any part is. known_at is the last moment needed: the bucket's end or the latest known_at of its
    bars.

    Only whole buckets come out: none of their slots, by the calendar of the symbol, lies beyond the data. At the end, the data
    are complete up to `until` (default: the close of each symbol's own last bar). At the start, a bucket that is cut by the
    first bar of all is left out; one in which a symbol begins later than others is its listing and stays. calendar: that of all
    symbols, or of each.
    """
    if to_interval.seconds % from_interval.seconds or to_interval == from_interval:
        raise InputError(f"{to_interval} bars cannot be made of {from_interval} bars. Choose a multiple of {from_interval}.")
    if not bars.height:
        return bars.select(BAR_COLUMNS)
    frame = bars.select(BAR_COLUMNS).sort("symbol", "open_time").with_columns(_bucket(to_interval).alias("bucket"))
    newest = pl.col("open_time").max() if until is None else pl.lit(until - from_interval.delta).dt.convert_time_zone("UTC")
    newest = newest.dt.cast_time_unit("us").alias("newest")
    made = _aggregated(frame).join(frame.group_by("symbol").agg(newest), on="symbol")
    start = int(frame["open_time"].to_physical().min())  # type: ignore[arg-type]  # there are bars
    groups = by_calendar(made["symbol"].unique(), calendar)
    whole = pl.concat(
        _whole(made.filter(pl.col("symbol").is_in(own)), from_interval, to_interval, start, calendar_named(name))
        for name, own in groups.items()
    )
    known = pl.max_horizontal(pl.col("bucket") + to_interval.delta, "known_at")
    return whole.with_columns(open_time=pl.col("bucket"), known_at=known).select(BAR_COLUMNS).sort("symbol", "open_time")


def _whole(made: pl.DataFrame, interval: Interval, longer: Interval, start: int, own: Calendar) -> pl.DataFrame:
    """The whole buckets of symbols of one calendar. start: of the data. made: beside each `newest`, the last complete bar."""
    bucket, first, newest = (made[name].to_physical().to_numpy() for name in ("bucket", "first_open", "newest"))
    ended = own.next_slots(interval, newest + 1) >= bucket + longer.microseconds
    uncut = own.next_slots(interval, bucket) >= start
    listing = first > own.next_slots(interval, np.array([start]))
    return made.filter(pl.Series(ended & (uncut | listing)))


def _bucket(interval: Interval) -> pl.Expr:
    micros = pl.col("open_time").to_physical() - interval.origin_microseconds
    floored = micros - micros % interval.microseconds + interval.origin_microseconds
    return floored.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _aggregated(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a bucket; `frame` is sorted, so that first and last are those in time."""
    totals = frame.group_by(_KEY, maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
        pl.when(pl.col("quote_volume").null_count() == 0).then(pl.col("quote_volume").sum()).alias("quote_volume"),
        pl.col("known_at").max(),
        pl.col("open_time").min().alias("first_open"),
    )
    # Few buckets hold a silent bar beside traded ones; only their prices are made again, without it.
    mixed = frame.filter(pl.col("volume") == 0).select(_KEY).unique()
    if not mixed.height:
        return totals
    traded = frame.join(mixed, on=_KEY, how="semi", maintain_order="left").filter(pl.col("volume") != 0)
    prices = traded.group_by(_KEY, maintain_order=True).agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()
    )
    return totals.update(prices, on=_KEY, how="left")
