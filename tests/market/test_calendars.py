"""Sessions, expected open times, and which calendar a set of bars follows."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidemill.domain.intervals import Interval
from tidemill.domain.market import Calendar
from tidemill.market.calendars import expected_times, infer_calendar
from tidemill.quality.sessions import closed_days, session_days

DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")
TIME = pl.Datetime("us", "UTC")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def frame(times: list[datetime]) -> pl.DataFrame:
    return pl.DataFrame({"open_time": times}, schema={"open_time": TIME})


def test_new_york_was_closed_on_holidays_and_after_the_storm() -> None:
    week = session_days(Calendar.XNYS, date(2012, 10, 26), date(2012, 11, 3)).to_list()
    assert week == [date(2012, 10, 26), date(2012, 10, 31), date(2012, 11, 1), date(2012, 11, 2)]
    assert session_days(Calendar.ALWAYS, date(2012, 10, 26), date(2012, 10, 29)).len() == 3
    assert session_days(Calendar.XNYS, date(2012, 10, 26), date(2012, 10, 26)).len() == 0


def test_a_whole_century_of_sessions_is_known() -> None:
    assert session_days(Calendar.XNYS, date(1999, 1, 1), date(2000, 1, 1)).len() == 252
    assert session_days(Calendar.XNYS, date(1963, 11, 22), date(1963, 11, 27)).to_list() == [
        date(1963, 11, 22),
        date(1963, 11, 26),  # the Monday of the state funeral between them
    ]


def test_days_outside_the_known_range_are_not_judged() -> None:
    days = pl.Series([date(1700, 1, 2), date(2024, 1, 1), date(2024, 1, 2), None, date(2300, 1, 1)])
    assert closed_days(Calendar.XNYS, days).to_list() == [date(2024, 1, 1)]
    assert closed_days(Calendar.ALWAYS, days).len() == 0


def test_expected_times_follow_the_grid_where_trading_never_stops() -> None:
    times = expected_times(Calendar.ALWAYS, HOUR, at("2024-01-06T22:30"), at("2024-01-07T02:00"))
    assert times.to_list() == [at("2024-01-06T23:00"), at("2024-01-07T00:00"), at("2024-01-07T01:00")]
    assert times.dtype == TIME


def test_expected_times_of_stocks_follow_new_yorks_clock_through_the_change_of_summer_time() -> None:
    times = expected_times(Calendar.XNYS, HOUR, at("2024-03-08"), at("2024-03-12")).to_list()
    assert len(times) == 14
    assert (times[0], times[7]) == (at("2024-03-08T14:30"), at("2024-03-11T13:30"))
    assert expected_times(Calendar.XNYS, DAY, at("2024-03-08"), at("2024-03-12")).to_list() == [
        at("2024-03-08"),
        at("2024-03-11"),
    ]


def test_weeks_are_expected_on_mondays() -> None:
    times = expected_times(Calendar.XNYS, Interval.parse("1w"), at("2024-01-03"), at("2024-01-20"))
    assert times.to_list() == [at("2024-01-08"), at("2024-01-15")]


def sessions(start: str, end: str) -> list[datetime]:
    return expected_times(Calendar.XNYS, DAY, at(start), at(end)).to_list()


def weekdays(slots: int, step: timedelta = timedelta(days=1)) -> list[datetime]:
    return [time for n in range(slots) if (time := at("2024-01-01") + n * step).weekday() < 5]


@pytest.mark.parametrize(
    ("times", "interval", "calendar"),
    [
        (sessions("2024-01-01", "2024-02-15"), DAY, Calendar.XNYS),
        ([*sessions("2024-01-01", "2024-03-15"), at("2024-01-13")], DAY, Calendar.XNYS),  # one stray Saturday
        ([at("2024-01-01") + timedelta(days=n) for n in range(30)], DAY, Calendar.ALWAYS),
        ([at("2024-01-08") + timedelta(days=n) for n in range(5)], DAY, Calendar.ALWAYS),  # no weekend in the range
        (weekdays(90), DAY, Calendar.ALWAYS),  # trades on holidays
        (expected_times(Calendar.XNYS, HOUR, at("2024-01-01"), at("2024-02-01")).to_list(), HOUR, Calendar.XNYS),
        (weekdays(400, timedelta(hours=1)), HOUR, Calendar.ALWAYS),  # trades at night
        (sessions("2024-01-01", "2024-02-15"), Interval.parse("1w"), Calendar.ALWAYS),
        ([], DAY, Calendar.ALWAYS),
    ],
)  # fmt: skip
def test_new_yorks_calendar_is_inferred_only_on_evidence(times: list[datetime], interval: Interval, calendar: Calendar) -> None:
    assert infer_calendar(frame(times), interval) == calendar


def test_the_calendar_of_real_bars_is_recognised(shared_data: Path) -> None:
    stocks = pl.read_parquet(shared_data / "sp500_daily_2013_2018" / "sp500_daily.parquet", columns=["date"])
    coins = pl.read_parquet(shared_data / "binance_spot_2024_1h" / "binance_spot_4h.parquet", columns=["open_time"])
    midnight = stocks.select(pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time"))
    assert infer_calendar(midnight, DAY) == Calendar.XNYS
    assert infer_calendar(coins.cast({"open_time": TIME}), Interval.parse("4h")) == Calendar.ALWAYS
