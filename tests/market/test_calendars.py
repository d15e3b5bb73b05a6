"""Which calendar a set of bars, and each symbol in it, follows."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidemill.calendars import ALWAYS, XNYS, calendar_named
from tidemill.domain.intervals import Interval
from tidemill.market.calendars import infer_calendar, infer_calendars

DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")
TIME = pl.Datetime("us", "UTC")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def frame(times: list[datetime]) -> pl.DataFrame:
    return pl.DataFrame({"open_time": times}, schema={"open_time": TIME})


def sessions(start: str, end: str) -> list[datetime]:
    return calendar_named(XNYS).slots(DAY, at(start), at(end)).to_list()


def weekdays(slots: int, step: timedelta = timedelta(days=1)) -> list[datetime]:
    return [time for n in range(slots) if (time := at("2024-01-01") + n * step).weekday() < 5]


@pytest.mark.parametrize(
    ("times", "interval", "calendar"),
    [
        (sessions("2024-01-01", "2024-02-15"), DAY, XNYS),
        ([*sessions("2024-01-01", "2024-03-15"), at("2024-01-13")], DAY, XNYS),  # one stray Saturday
        ([at("2024-01-01") + timedelta(days=n) for n in range(30)], DAY, ALWAYS),
        ([at("2024-01-08") + timedelta(days=n) for n in range(5)], DAY, ALWAYS),  # no weekend in the range
        (weekdays(90), DAY, ALWAYS),  # trades on holidays
        (calendar_named(XNYS).slots(HOUR, at("2024-01-01"), at("2024-02-01")).to_list(), HOUR, XNYS),
        (weekdays(400, timedelta(hours=1)), HOUR, ALWAYS),  # trades at night
        (sessions("2024-01-01", "2024-02-15"), Interval.parse("1w"), ALWAYS),
        ([], DAY, ALWAYS),
    ],
)  # fmt: skip
def test_new_yorks_calendar_is_inferred_only_on_evidence(times: list[datetime], interval: Interval, calendar: str) -> None:
    assert infer_calendar(frame(times), interval) == calendar


def test_the_calendar_of_real_bars_is_recognised(shared_data: Path) -> None:
    stocks = pl.read_parquet(shared_data / "sp500_daily_2013_2018" / "sp500_daily.parquet", columns=["date"])
    coins = pl.read_parquet(shared_data / "binance_spot_2024_1h" / "binance_spot_4h.parquet", columns=["open_time"])
    midnight = stocks.select(pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time"))
    assert infer_calendar(midnight, DAY) == XNYS
    assert infer_calendar(coins.cast({"open_time": TIME}), Interval.parse("4h")) == ALWAYS


def of(**symbols: list[datetime]) -> pl.DataFrame:
    rows = [(symbol, time) for symbol, times in symbols.items() for time in times]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "open_time": TIME}, orient="row")


def days(start: str, count: int, step: timedelta = timedelta(days=1)) -> list[datetime]:
    return [at(start) + n * step for n in range(count)]


def test_each_symbol_of_a_mixed_set_has_the_calendar_that_its_own_bars_prove() -> None:
    bars = of(BTC=days("2024-01-01", 90), KO=sessions("2024-01-01", "2024-03-31"), PEP=sessions("2024-02-01", "2024-03-31"))
    assert infer_calendars(bars, DAY) == {"BTC": ALWAYS, "KO": XNYS, "PEP": XNYS}


def test_hours_tell_them_apart_too() -> None:
    stock = calendar_named(XNYS).slots(HOUR, at("2024-01-01"), at("2024-02-15")).to_list()
    coin = days("2024-01-01", 1_000, timedelta(hours=1))
    assert infer_calendars(of(BTC=coin, KO=stock), HOUR) == {"BTC": ALWAYS, "KO": XNYS}


def test_a_symbol_with_too_few_bars_follows_what_its_kind_proves() -> None:
    bars = of(
        BTC=days("2024-01-01", 90), NEW=days("2024-03-20", 9), KO=sessions("2024-01-01", "2024-03-31"),
        IPO=sessions("2024-03-20", "2024-03-28"),
    )  # fmt: skip
    assert infer_calendars(bars, DAY) == {"BTC": ALWAYS, "NEW": ALWAYS, "KO": XNYS, "IPO": XNYS}


def test_where_no_holiday_fell_into_a_symbols_life_its_kind_tells() -> None:
    autumn = [time for time in days("2024-10-01", 40) if time.weekday() < 5]  # none until Thanksgiving
    assert infer_calendars(of(BTC=days("2024-10-01", 40), KO=autumn), DAY) == {"BTC": ALWAYS, "KO": XNYS}
    assert infer_calendars(of(LONG=weekdays(300), KO=autumn), DAY) == {"LONG": ALWAYS, "KO": ALWAYS}


@pytest.mark.parametrize(
    ("bars", "whole"),
    [
        (of(KO=sessions("2024-01-01", "2024-03-15"), IPO=sessions("2024-03-11", "2024-03-15")), XNYS),
        (of(KO=sessions("2024-01-01", "2024-03-15"), ODD=[at("2024-03-08"), at("2024-03-09")]), XNYS),  # a stray Saturday
        (of(BTC=days("2024-01-01", 60), NEW=days("2024-02-26", 5)), ALWAYS),
        (of(A=weekdays(90), B=weekdays(30)), ALWAYS),  # every weekday, holidays too
        (of(A=sessions("2024-01-01", "2024-01-10"), B=sessions("2024-01-02", "2024-01-04")), XNYS),
        (of(), ALWAYS),
    ],
)  # fmt: skip
def test_bars_of_one_kind_all_have_the_calendar_of_the_whole(bars: pl.DataFrame, whole: str) -> None:
    found = infer_calendars(bars, DAY)
    assert infer_calendar(bars, DAY) == whole
    assert found == dict.fromkeys(bars["symbol"].unique(), whole)


def test_what_is_known_of_a_source_stands_until_bars_enough_say_otherwise() -> None:
    assert infer_calendars(of(IPO=[at("2024-03-11")]), DAY, XNYS) == {"IPO": XNYS}
    assert infer_calendars(of(BTC=days("2024-01-01", 60)), DAY, XNYS) == {"BTC": ALWAYS}


def test_every_symbol_of_the_real_panels_has_the_calendar_of_the_whole(shared_data: Path) -> None:
    stocks = pl.read_parquet(shared_data / "sp500_daily_2013_2018" / "sp500_daily.parquet", columns=["symbol", "date"])
    coins = pl.read_parquet(shared_data / "binance_spot_2024_1h" / "binance_spot_4h.parquet", columns=["symbol", "open_time"])
    stocks = stocks.select("symbol", pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time"))
    assert set(infer_calendars(stocks, DAY).values()) == {XNYS}
    assert set(infer_calendars(coins.cast({"open_time": TIME}), Interval.parse("4h")).values()) == {ALWAYS}
