"""Days on which a calendar trades. The New York sessions come from `exchange_calendars`, loaded only when asked for.

The import and the table of all sessions 1885-2060 take about 0.8 s once a process; look-ups after that are array work.
"""

from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from tidemill.domain.market import Calendar

if TYPE_CHECKING:
    import polars as pl

NEW_YORK = "America/New_York"
SESSION_OPEN_MINUTES = 9 * 60 + 30
SESSION_CLOSE_MINUTES = 16 * 60
_FIRST, _LAST = date(1885, 1, 1), date(2060, 12, 31)


@lru_cache(maxsize=1)
def _new_york_days() -> "pl.Series":
    import warnings

    import exchange_calendars
    import polars as pl

    with warnings.catch_warnings():
        # exchange_calendars 4.13 reads zoned columns in a way that pandas 3.1 deprecates; the values are right.
        warnings.filterwarnings("ignore", message="Series.values returning", category=DeprecationWarning)
        calendar = exchange_calendars.get_calendar("XNYS", start=_FIRST.isoformat(), end=_LAST.isoformat())
    return pl.Series("day", calendar.sessions.to_numpy()).cast(pl.Date)


def session_days(calendar: Calendar, start: date, end: date) -> "pl.Series":
    """Days with start ≤ day < end on which `calendar` trades, ascending, dtype Date. Known for XNYS from 1885 to 2060."""
    import polars as pl

    if end <= start:
        return pl.Series("day", [], dtype=pl.Date)
    if calendar is Calendar.ALWAYS:
        return pl.date_range(start, end - timedelta(days=1), "1d", eager=True).alias("day")
    days = _new_york_days()
    return days.filter((days >= start) & (days < end))


def closed_days(calendar: Calendar, days: "pl.Series") -> "pl.Series":
    """Those of `days` (dtype Date) on which `calendar` does not trade. Days before 1885 and after 2060 are not judged."""
    if calendar is Calendar.ALWAYS:
        return days.clear()
    judged = days.drop_nulls().filter((days.drop_nulls() >= _FIRST) & (days.drop_nulls() <= _LAST))
    return judged.filter(~judged.is_in(_new_york_days().implode()))


def local_day(calendar: Calendar, seconds: int) -> "pl.Expr":
    """The trading day of `open_time`: its UTC date for daily bars and 24/7 venues, New York's for intraday stock bars."""
    import polars as pl

    time = pl.col("open_time")
    if calendar is Calendar.XNYS and seconds < 86_400:
        time = time.dt.convert_time_zone(NEW_YORK)
    return time.dt.date()
