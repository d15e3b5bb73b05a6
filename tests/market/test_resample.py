"""Longer bars from shorter ones, with the exchange's own as the oracle."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidemill.calendars import ALWAYS, XNYS, calendar_named
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS
from tidemill.market.resample import resample

FIVE, QUARTER, HOUR, DAY = (Interval.parse(name) for name in ("5m", "15m", "1h", "1d"))
START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def bar(slot: int, open: float, high: float, low: float, close: float, volume: float, symbol: str = "AB") -> dict[str, object]:
    time = START + slot * FIVE.delta
    return {
        "symbol": symbol, "open_time": time, "open": open, "high": high, "low": low, "close": close, "volume": volume,
        "quote_volume": volume * close, "known_at": time + FIVE.delta,
    }  # fmt: skip


def bars(*rows: dict[str, object]) -> pl.DataFrame:
    floats = dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume"), pl.Float64)
    return pl.DataFrame(list(rows), schema_overrides={"open_time": TIME, "known_at": TIME, **floats})


def test_a_bucket_is_first_highest_lowest_last_and_the_sum_of_volumes() -> None:
    (made,) = resample(bars(bar(0, 1, 5, 1, 2, 10), bar(1, 2, 9, 2, 3, 20), bar(2, 3, 4, 0.5, 4, 30)), FIVE, QUARTER).iter_rows(
        named=True
    )
    assert tuple(made) == BAR_COLUMNS
    assert [made[name] for name in ("open", "high", "low", "close", "volume", "quote_volume")] == [1, 9, 0.5, 4, 60, 200]
    assert (made["open_time"], made["known_at"]) == (START, START + timedelta(minutes=15))


def test_bars_without_volume_take_no_part_unless_there_are_no_others() -> None:
    mixed = bars(bar(0, 7, 7, 7, 7, 0), bar(1, 2, 3, 1, 2, 5), bar(2, 8, 8, 8, 8, 0))
    assert resample(mixed, FIVE, QUARTER).select("open", "high", "low", "close", "volume").row(0) == (2, 3, 1, 2, 5)
    silent = bars(bar(0, 7, 7, 7, 7, 0), bar(1, 7, 7, 7, 7, 0), bar(2, 7, 7, 7, 7, 0))
    assert resample(silent, FIVE, QUARTER).select("open", "high", "low", "close", "volume").row(0) == (7, 7, 7, 7, 0)


def test_a_bucket_that_is_not_over_is_not_emitted() -> None:
    ticks = [bar(n, 1, 1, 1, 1, 1) for n in range(5)]
    assert resample(bars(*ticks), FIVE, QUARTER)["open_time"].to_list() == [START]
    whole = resample(bars(*ticks), FIVE, QUARTER, until=START + timedelta(minutes=30))
    assert whole["volume"].to_list() == [3, 2]
    assert whole["known_at"].to_list() == [START + timedelta(minutes=15), START + timedelta(minutes=30)]


def test_a_bucket_cut_by_the_start_of_the_data_is_left_out_and_one_cut_by_a_listing_stays() -> None:
    old = [bar(n, 1, 1, 1, 1, 1) for n in range(1, 9)]
    new = [bar(n, 1, 1, 1, 1, 1, "CD") for n in range(4, 9)]
    made = resample(bars(*old, *new), FIVE, QUARTER)
    assert made.select("symbol", "volume").rows() == [("AB", 3), ("AB", 3), ("CD", 2), ("CD", 3)]


def test_a_bar_known_late_makes_its_bucket_known_late() -> None:
    late = bars(*(bar(n, 1, 1, 1, 1, 1) for n in range(3))).with_columns(known_at=pl.col("known_at") + pl.duration(days=1))
    assert resample(late, FIVE, QUARTER)["known_at"].to_list() == [START + timedelta(days=1, minutes=15)]


def test_a_quote_volume_that_is_partly_unknown_is_unknown() -> None:
    rows = [bar(n, 1, 1, 1, 1, 1) for n in range(3)]
    rows[1]["quote_volume"] = None
    assert resample(bars(*rows), FIVE, QUARTER)["quote_volume"].to_list() == [None]


def test_weeks_begin_on_monday() -> None:
    day = Interval.parse("1d")
    frame = bars(*(bar(288 * n, 1, 1, 1, 1, 1) for n in range(14)))
    made = resample(frame, day, Interval.parse("1w"))
    assert made["open_time"].to_list() == [START, START + timedelta(days=7)]  # 2024-01-01 was a Monday
    assert made["volume"].to_list() == [7, 7]


@pytest.mark.parametrize(("source", "target"), [("1h", "5m"), ("1h", "1h"), ("4h", "6h")])
def test_intervals_that_do_not_divide_are_refused(source: str, target: str) -> None:
    with pytest.raises(InputError, match="cannot be made of"):
        resample(bars(bar(0, 1, 1, 1, 1, 1)), Interval.parse(source), Interval.parse(target))


def test_no_bars_make_no_bars() -> None:
    assert resample(bars(bar(0, 1, 1, 1, 1, 1)).clear(), FIVE, HOUR).height == 0


@pytest.fixture(scope="module")
def five_minutes(shared_data: Path) -> pl.DataFrame:
    frame = pl.read_parquet(shared_data / "binance_spot_2024_5m" / "binance_spot_5m.parquet").cast({"open_time": TIME})
    return frame.with_columns(quote_volume=pl.lit(None, pl.Float64), known_at=pl.col("open_time") + FIVE.delta)


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("15m", "binance_spot_2024_5m/binance_spot_15m_3sym.parquet"),
        ("1h", "binance_spot_2024_1h/binance_spot_1h.parquet"),
        ("4h", "binance_spot_2024_1h/binance_spot_4h.parquet"),
        ("1d", "binance_spot_2024_1h/binance_spot_1d.parquet"),
    ],
)
def test_the_exchanges_own_bars_are_met_exactly(shared_data: Path, five_minutes: pl.DataFrame, target: str, file: str) -> None:
    own = (
        pl.read_parquet(shared_data / file)
        .cast({"open_time": TIME})
        .filter(pl.col("symbol").is_in(five_minutes["symbol"].unique().implode()))
    )
    made = resample(five_minutes, FIVE, Interval.parse(target)).filter(pl.col("symbol").is_in(own["symbol"].unique().implode()))
    keys = ["symbol", "open_time"]
    prices = [*keys, "open", "high", "low", "close"]
    assert made.select(prices).equals(own.sort(keys).select(prices))
    assert made["volume"].to_numpy() == pytest.approx(own.sort(keys)["volume"].to_numpy(), rel=1e-14)


def test_without_the_zero_volume_rule_they_would_not_be_met(shared_data: Path, five_minutes: pl.DataFrame) -> None:
    naive = resample(five_minutes.with_columns(volume=pl.col("volume") + 1), FIVE, HOUR)
    own = pl.read_parquet(shared_data / "binance_spot_2024_1h" / "binance_spot_1h.parquet").cast({"open_time": TIME})
    both = naive.join(own, on=["symbol", "open_time"], suffix="_own")
    assert both.filter(pl.col("open") != pl.col("open_own")).height > 10


def flat(symbol: str, times: pl.Series, interval: Interval) -> pl.DataFrame:
    prices = {name: pl.lit(1.0) for name in ("open", "high", "low", "close", "volume", "quote_volume")}
    known = pl.col("open_time") + interval.delta
    return times.to_frame().select(pl.lit(symbol).alias("symbol"), "open_time", **prices, known_at=known)


def test_a_day_of_a_stock_is_whole_when_its_session_is_whatever_coins_trade_beside_it() -> None:
    # From Tuesday in the middle of New York's session, which has its hours at half past, to Friday morning before the next one.
    start, end = datetime(2024, 1, 2, 15, 45, tzinfo=UTC), datetime(2024, 1, 5, 12, tzinfo=UTC)
    calendar = {"BTC": ALWAYS, "KO": XNYS, "IPO": XNYS}
    times = {symbol: calendar_named(name).slots(HOUR, start, end) for symbol, name in calendar.items()}
    times["IPO"] = times["IPO"].filter(times["IPO"] >= datetime(2024, 1, 3, 17, tzinfo=UTC))
    mixed = pl.concat(flat(symbol, own, HOUR) for symbol, own in times.items())
    made = resample(mixed, HOUR, DAY, calendar=calendar)
    days = {str(symbol): own["open_time"].dt.day().to_list() for (symbol,), own in made.group_by("symbol")}
    # The stock's Tuesday is cut like the coin's, though its first bar comes later; its Thursday is over, and the listing stays.
    assert days == {"BTC": [3, 4], "KO": [3, 4], "IPO": [3, 4]}
    assert made.filter(symbol="KO")["volume"].to_list() == [7.0, 7.0]
    assert resample(mixed.filter(symbol="KO"), HOUR, DAY, calendar=XNYS).equals(made.filter(symbol="KO"))


def test_a_week_of_a_stock_is_over_on_friday() -> None:
    days = calendar_named(XNYS).slots(DAY, datetime(2024, 1, 8, tzinfo=UTC), datetime(2024, 1, 13, tzinfo=UTC))
    week = resample(flat("KO", days, DAY), DAY, Interval.parse("1w"), calendar=XNYS)
    assert week["open_time"].to_list() == [datetime(2024, 1, 8, tzinfo=UTC)]
    assert week["volume"].to_list() == [5.0]
    assert resample(flat("KO", days, DAY), DAY, Interval.parse("1w")).is_empty()
