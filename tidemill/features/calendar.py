"""The calendar of a bar, from its open_time alone, so causal by construction. Everything is UTC.

A daily bar opens at 00:00 of its session's date, so its weekday is the session's; its hour is always 0. An hourly bar has
the day and the hour at which it opens, in UTC whatever the venue's own time zone.
"""

import math

import numpy as np

from tidemill.features.arrays import Floats, Integers

_MINUTES = 1_440
_ANGLES = [2.0 * math.pi * minute / _MINUTES for minute in range(_MINUTES)]
# Looked up, not computed: a vectorised sine may give other bits for one number than for many.
_SINE, _COSINE = np.array([math.sin(angle) for angle in _ANGLES]), np.array([math.cos(angle) for angle in _ANGLES])


def calendar_column(name: str, times: Integers) -> Floats:
    """One of CALENDAR for each of `times` (epoch microseconds, UTC).

    day_of_week: 0 is Monday. day_of_month: from 1. days_left_in_month: 0 on its last day. month: 1 to 12.
    hour_sine, hour_cosine: of the time of day as a full turn, by the minute.
    """
    minutes = times // 60_000_000
    if name in ("hour_sine", "hour_cosine"):
        turned: Floats = (_SINE if name == "hour_sine" else _COSINE)[minutes % _MINUTES]
        return turned
    days = minutes // _MINUTES
    if name == "day_of_week":
        return np.asarray((days + 3) % 7, dtype=np.float64)  # the epoch was a Thursday
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    if name == "month":
        return np.asarray(months.astype(np.int64) % 12 + 1, dtype=np.float64)
    if name == "day_of_month":
        return np.asarray((dates - months.astype("datetime64[D]")).astype(np.int64) + 1, dtype=np.float64)
    return np.asarray(((months + 1).astype("datetime64[D]") - dates).astype(np.int64) - 1, dtype=np.float64)
