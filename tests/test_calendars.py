"""What a calendar answers, against `exchange_calendars` itself and against hand-counted slots."""

import warnings
from datetime import UTC, date, datetime, timedelta

import exchange_calendars
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.calendars import ALWAYS, NEVER, XNYS, calendar_named, epochs, periods_per_year_of
from tidemill.domain.errors import UnknownNameError
from tidemill.domain.intervals import Interval, epoch_microseconds

DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")
NEW_YORK, CLOCK = calendar_named(XNYS), calendar_named(ALWAYS)
NO_TIMES = np.empty(0, dtype=np.int64)
DAYS = st.dates(date(1990, 1, 1), date(2030, 1, 1))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@pytest.fixture(scope="module")
def oracle() -> exchange_calendars.ExchangeCalendar:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return exchange_calendars.get_calendar("XNYS", start="1989-01-01", end="2031-12-31")


@settings(max_examples=40, deadline=None)
@given(DAYS, st.integers(0, 400))
def test_daily_slots_are_the_sessions(oracle: exchange_calendars.ExchangeCalendar, first: date, length: int) -> None:
    end = first + timedelta(days=length)
    expected = [session.date() for session in oracle.sessions_in_range(str(first), str(end)) if session.date() < end]
    found = NEW_YORK.slots(DAY, midnight(first), midnight(end))
    assert found.dt.date().to_list() == expected
    assert found.dtype == pl.Datetime("us", "UTC")


@settings(max_examples=25, deadline=None)
@given(DAYS, st.sampled_from([5, 15, 30, 60, 240]))
def test_slots_within_a_day_are_those_of_each_session_early_closes_and_summer_time_too(
    oracle: exchange_calendars.ExchangeCalendar, first: date, minutes: int
) -> None:
    end = first + timedelta(days=40)
    expected: list[datetime] = []
    for session in oracle.sessions_in_range(str(first), str(end - timedelta(days=1))):
        opened, closed = oracle.session_open_close(session)
        expected += pd.date_range(opened, closed, freq=f"{minutes}min", inclusive="left").to_pydatetime().tolist()
    assert NEW_YORK.slots(Interval(minutes * 60), midnight(first), midnight(end)).to_list() == expected


@settings(max_examples=40, deadline=None)
@given(DAYS, st.integers(0, 86_399))
def test_the_next_slot_is_the_first_at_or_after_a_time(
    oracle: exchange_calendars.ExchangeCalendar, day: date, second: int
) -> None:
    time = midnight(day) + timedelta(seconds=second)
    session = oracle.date_to_session(str(day if second == 0 else day + timedelta(days=1)), direction="next")
    found = NEW_YORK.next_slots(DAY, np.array([epoch_microseconds(time)]))
    assert found.tolist() == [epoch_microseconds(midnight(session.date()))]
    opens = oracle.opens[str(day) :].head(10)
    opened = opens[opens >= pd.Timestamp(time)].iloc[0]
    inside = NEW_YORK.next_slots(Interval(24 * 3_600 - 60), np.array([epoch_microseconds(time)]))  # one slot a session
    assert inside.tolist() == [epoch_microseconds(opened.to_pydatetime())]


def test_the_clock_has_every_slot_of_the_grid() -> None:
    times = CLOCK.slots(HOUR, at("2024-01-06T22:30"), at("2024-01-07T02:00"))
    assert times.to_list() == [at("2024-01-06T23:00"), at("2024-01-07T00:00"), at("2024-01-07T01:00")]
    asked = [epoch_microseconds(at(text)) for text in ("2024-01-06T22:30", "2024-01-07T00:00")]
    found = [epoch_microseconds(at(text)) for text in ("2024-01-06T23:00", "2024-01-07T00:00")]
    assert CLOCK.next_slots(HOUR, np.array(asked)).tolist() == found


def test_weeks_begin_on_mondays_everywhere() -> None:
    for calendar in (NEW_YORK, CLOCK):
        times = calendar.slots(Interval.parse("1w"), at("2024-01-03"), at("2024-01-20"))
        assert times.to_list() == [at("2024-01-08"), at("2024-01-15")]


def test_beyond_what_is_known_there_is_no_slot_and_no_closed_day() -> None:
    days = pl.Series([date(1700, 1, 2), date(2024, 1, 1), date(2024, 1, 2), None, date(2300, 1, 1)])
    assert NEW_YORK.closed_days(days).to_list() == [date(2024, 1, 1)]
    assert CLOCK.closed_days(days).len() == 0
    assert NEW_YORK.next_slots(DAY, np.array([epoch_microseconds(at("2070-01-01"))])).tolist() == [NEVER]
    assert NEW_YORK.next_slots(DAY, np.array([], dtype=np.int64)).tolist() == []


def test_the_exchange_was_closed_after_the_storm_and_for_the_funeral() -> None:
    week = NEW_YORK.slots(DAY, at("2012-10-26"), at("2012-11-03")).dt.date().to_list()
    assert week == [date(2012, 10, 26), date(2012, 10, 31), date(2012, 11, 1), date(2012, 11, 2)]
    assert NEW_YORK.slots(DAY, at("1963-11-22"), at("1963-11-27")).dt.day().to_list() == [22, 26]


@pytest.mark.parametrize(
    ("interval", "calendar", "expected"),
    [
        ("1d", XNYS, 252.0),
        ("1h", XNYS, 252.0 * 6.5),
        ("1w", XNYS, 52.0),
        ("1d", ALWAYS, 365.0),
        ("1h", ALWAYS, 8_760.0),
        ("5m", ALWAYS, 105_120.0),
    ],
)
def test_bars_in_a_year(interval: str, calendar: str, expected: float) -> None:
    assert periods_per_year_of(Interval.parse(interval), NO_TIMES, {calendar: (0, 0)}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [("1d", 365.0), ("1w", 52.0), ("30m", 17_520.0), ("5m", 105_120.0), ("1h", 8_760.0 + 252.0 * 7)],
)
def test_slots_that_several_calendars_share_count_once_in_a_year(interval: str, expected: float) -> None:
    # New York's hours begin at half past, so none of them is one of the clock's; the seventh is half a one.
    length, bounds = Interval.parse(interval), (at("2021-01-01"), at("2022-01-01"))
    times = np.unique(np.concatenate([epochs(one.slots(length, *bounds)) for one in (NEW_YORK, CLOCK)]))
    listed = dict.fromkeys((XNYS, ALWAYS), (times[0], times[-1]))
    assert periods_per_year_of(length, times, listed) == pytest.approx(expected, rel=0.002)


def test_bars_of_stocks_at_full_hours_are_slots_of_the_coins() -> None:
    times = epochs(CLOCK.slots(HOUR, at("2021-01-01"), at("2022-01-01")))
    assert periods_per_year_of(HOUR, times, dict.fromkeys((XNYS, ALWAYS), (times[0], times[-1]))) == 8_760.0


def test_bars_of_stocks_at_other_hours_of_the_day_are_slots_beside_those_of_the_coins() -> None:
    bounds = (at("2021-01-01"), at("2022-01-01"))
    stocks = epochs(NEW_YORK.slots(DAY, *bounds)) + 5 * HOUR.microseconds
    times = np.union1d(stocks, epochs(CLOCK.slots(DAY, *bounds)))
    assert periods_per_year_of(DAY, times, dict.fromkeys((XNYS, ALWAYS), (times[0], times[-1]))) == pytest.approx(
        617.0, rel=1e-3
    )


def test_no_calendar_at_all_counts_as_trading_that_never_stops() -> None:
    assert periods_per_year_of(DAY, NO_TIMES, {}) == 365.0


def test_each_time_counts_as_a_part_of_the_year_of_what_was_listed_then() -> None:
    stocks = NEW_YORK.slots(DAY, at("2020-01-01"), at("2022-01-01"))
    coins = CLOCK.slots(DAY, at("2022-01-01"), at("2022-07-02"))
    last = NEW_YORK.slots(DAY, at("2022-07-02"), at("2023-01-01"))
    times = pl.concat([stocks, coins, last]).to_physical().to_numpy()
    listed = {
        XNYS: (times[0], times[-1]),
        ALWAYS: tuple(epoch_microseconds(at(text)) for text in ("2022-01-01", "2022-07-01")),
    }
    years = len(stocks) / 252 + len(coins) / 365 + len(last) / 252
    assert periods_per_year_of(DAY, times, listed) == pytest.approx(len(times) / years)
    assert len(times) / periods_per_year_of(DAY, times, listed) == pytest.approx(3.0, rel=0.01)


def test_one_calendar_or_no_times_give_the_year_as_it_is() -> None:
    times = NEW_YORK.slots(DAY, at("2020-01-01"), at("2022-01-01")).to_physical().to_numpy()
    assert periods_per_year_of(DAY, times, {XNYS: (0, 0)}) == 252.0
    assert periods_per_year_of(DAY, times[:0], {XNYS: (0, 0), ALWAYS: (0, 0)}) == 365.0
    assert periods_per_year_of(DAY, times, {}) == 365.0


def test_an_unknown_calendar_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="XNYS"):
        calendar_named("NYSE")
