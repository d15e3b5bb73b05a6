"""The set `calendar`: when a bar opens, in UTC. Functions of open_time alone, so causal by construction.

Numbers for people and trees (weekday, day, month), a turn of the circle for the hour, whose 23 and 0 are neighbours. On daily
bars the hour is constant and teaches nothing. The turn of the month counts calendar days, since a bar cannot know the venue's
next holiday. The rules of the columns: tidemill/features/calendar.py.
"""

from tidemill.features.declaration import Declarations
from tidemill.features.operators import day_of_month, day_of_week, days_left_in_month, hour_cosine, hour_sine, month, where

DECLARED = Declarations()
feature, named_set = DECLARED.feature, DECLARED.named_set

feature("weekday", day_of_week, unit="0 to 6", about="day of the week of the bar's open in UTC, 0 being Monday")
feature("monthday", day_of_month, unit="1 to 31", about="day of the month of the bar's open in UTC")
feature(
    "turn_of_month",
    where((day_of_month <= 3.0) + (days_left_in_month < 3.0), 1.0, 0.0),
    unit="0 or 1",
    about="whether the bar opens in the first or last three calendar days of a month, UTC",
)
feature("month_of_year", month, unit="1 to 12", about="month of the bar's open in UTC")
feature("hour_sin", hour_sine, unit="-1 to 1", about="sine of the time of day of the bar's open, UTC, a day being a full turn")
feature(
    "hour_cos", hour_cosine, unit="-1 to 1", about="cosine of the time of day of the bar's open, UTC, a day being a full turn"
)

named_set("calendar", "weekday monthday turn_of_month month_of_year hour_sin hour_cos")
