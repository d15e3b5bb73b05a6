"""When bars are expected: the slots of a calendar, and which calendar a set of bars follows."""

from datetime import UTC, date, datetime, timedelta

import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.domain.market import Calendar
from tidemill.quality.sessions import (
    NEW_YORK,
    SESSION_CLOSE_MINUTES,
    SESSION_OPEN_MINUTES,
    closed_days,
    local_day,
    session_days,
)

_DAY = 86_400
_TIME = pl.Datetime("us", "UTC")
# A stock file may hold a stray weekend row, which validation then refuses; a venue that never closes has 2 in 7.
_WEEKEND_SHARE = 0.10
# Bars outside 04:00-20:00 in New York: none in stock data, a third of a day on a venue that never closes.
_NIGHT_SHARE = 0.05
_HOLIDAY_SHARE = 0.5


def infer_calendar(bars: pl.DataFrame, interval: Interval) -> Calendar:
    """XNYS where the open times prove it, else 24/7, under which no day is closed.

    bars: frame with `open_time`. XNYS needs evidence: a weekend inside the range without bars, no trade on most New York
    holidays in the range, and, for intraday bars, none at night. Too short a range proves nothing and gives 24/7.
    """
    times = bars.select(pl.col("open_time").drop_nulls())
    days = times.select(local_day(Calendar.XNYS, interval.seconds).alias("day"))["day"].unique().sort()
    if interval.seconds > _DAY or not _weekends_are_closed(days):
        return Calendar.ALWAYS
    if interval.seconds < _DAY and _night_share(times) > _NIGHT_SHARE:
        return Calendar.ALWAYS
    return Calendar.ALWAYS if _trades_on_holidays(days) else Calendar.XNYS


def _weekends_are_closed(days: pl.Series) -> bool:
    first, last = days.min(), days.max()
    if not isinstance(first, date) or not isinstance(last, date):
        return False
    whole_weekends = pl.date_range(first, last, "1d", eager=True).dt.weekday().eq(7).sum()
    share = days.dt.weekday().is_in([6, 7]).mean()
    return bool(whole_weekends) and isinstance(share, float) and share <= _WEEKEND_SHARE


def _night_share(times: pl.DataFrame) -> float:
    hour = pl.col("open_time").dt.convert_time_zone(NEW_YORK).dt.hour()
    return float(times.select((~hour.is_between(4, 20)).mean()).item() or 0.0)


def _trades_on_holidays(days: pl.Series) -> bool:
    first, last = days.min(), days.max()
    if not isinstance(first, date) or not isinstance(last, date):
        return False
    span = pl.date_range(first, last, "1d", eager=True)
    holidays = closed_days(Calendar.XNYS, span.filter(span.dt.weekday() <= 5))
    if not holidays.len():
        return False
    return days.is_in(holidays.implode()).sum() > _HOLIDAY_SHARE * holidays.len()


def expected_times(calendar: Calendar, interval: Interval, start: datetime, end: datetime) -> pl.Series:
    """Open times with start ≤ time < end at which a bar is expected, ascending, Datetime("us", "UTC").

    24/7: every slot of the interval's grid. XNYS daily: 00:00 UTC of every session; intraday: slots from 09:30 to 16:00 in
    New York (early closes are not known here and count as whole days). Weeks: the Mondays of the grid.
    """
    if calendar is Calendar.ALWAYS or interval.seconds > _DAY:
        first = interval.floor(start)
        slots = pl.datetime_range(first, end, interval.delta, closed="left", eager=True, time_unit="us", time_zone="UTC")
    else:
        days = session_days(calendar, start.date() - timedelta(days=1), end.date() + timedelta(days=2))
        slots = (
            days.cast(pl.Datetime("us")).dt.replace_time_zone("UTC") if interval.seconds == _DAY else _intraday(days, interval)
        )
    floor, ceiling = start.astimezone(UTC), end.astimezone(UTC)
    return slots.filter((slots >= floor) & (slots < ceiling)).cast(_TIME).alias("open_time")


def _intraday(days: pl.Series, interval: Interval) -> pl.Series:
    minutes = pl.int_ranges(SESSION_OPEN_MINUTES * 60, SESSION_CLOSE_MINUTES * 60, interval.seconds, dtype=pl.Int64).alias(
        "offset"
    )
    frame = days.to_frame("day").with_columns(minutes).explode("offset")
    local = pl.col("day").cast(pl.Datetime("us")) + pl.duration(seconds="offset")
    return frame.select(local.dt.replace_time_zone(NEW_YORK).dt.convert_time_zone("UTC").alias("t"))["t"]
