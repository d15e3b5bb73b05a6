"""Missing bars are found where a calendar expects them, and nowhere else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.intervals import Interval
from tidemill.market.gaps import GAP_SCHEMA, find_gaps

DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")
START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(slots: list[int], interval: Interval = HOUR, symbol: str = "AB") -> pl.DataFrame:
    times = [START + slot * interval.delta for slot in slots]
    schema = {"symbol": pl.String(), "open_time": pl.Datetime("us", "UTC")}
    return pl.DataFrame({"symbol": [symbol] * len(slots), "open_time": times}, schema=schema)


def test_a_gap_goes_from_the_first_missing_bar_to_the_next_that_is_there() -> None:
    found = find_gaps(bars([0, 1, 4, 5, 7]), HOUR, ALWAYS)
    assert found.schema == GAP_SCHEMA
    assert found.rows() == [
        ("AB", START + timedelta(hours=2), START + timedelta(hours=4), 2),
        ("AB", START + timedelta(hours=6), START + timedelta(hours=7), 1),
    ]


def test_nothing_is_missing_before_a_listing_or_after_the_last_bar() -> None:
    both = pl.concat([bars([0, 1, 2, 3, 4, 5]), bars([3, 4], symbol="CD")])
    assert find_gaps(both, HOUR, ALWAYS).height == 0


def test_weekends_and_holidays_are_no_gaps_in_new_york_and_are_where_trading_never_stops() -> None:
    # 2024-01-12 was a Friday, 2024-01-15 Martin Luther King day.
    week = bars([11, 15, 16], DAY)
    assert find_gaps(week, DAY, XNYS).height == 0
    assert find_gaps(week, DAY, ALWAYS)["missing"].to_list() == [3]
    assert find_gaps(bars([11, 16], DAY), DAY, XNYS)["missing"].to_list() == [1]


def test_intraday_stock_gaps_count_the_session_only() -> None:
    opening = datetime(2024, 1, 11, 14, 30, tzinfo=UTC)
    times = [opening, opening + timedelta(hours=6), opening + timedelta(days=1, hours=1)]
    frame = pl.DataFrame({"symbol": ["AB"] * 3, "open_time": times}, schema_overrides={"open_time": pl.Datetime("us", "UTC")})
    assert find_gaps(frame, HOUR, XNYS)["missing"].to_list() == [5, 1]


def test_frames_with_too_few_bars_have_no_gaps() -> None:
    for frame in (bars([]), bars([3]), bars([0, 1]).with_columns(open_time=pl.lit(None, pl.Datetime("us", "UTC")))):
        assert find_gaps(frame, HOUR, ALWAYS).schema == GAP_SCHEMA
        assert find_gaps(frame, HOUR, ALWAYS).height == 0


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 60), min_size=2), st.integers(0, 5))
def test_gaps_and_bars_together_fill_the_life_of_a_symbol_whatever_bars_come_twice(slots: set[int], twice: int) -> None:
    found = find_gaps(bars([*slots, *sorted(slots)[:twice]]), HOUR, ALWAYS)
    assert found["missing"].sum() + len(slots) == max(slots) - min(slots) + 1
    assert ((found["end"] - found["start"]).dt.total_hours() == found["missing"]).all()


def test_the_missing_sessions_of_the_stock_panel_are_the_documented_ones(shared_data: Path) -> None:
    panel = pl.read_parquet(shared_data / "sp500_daily_2013_2018" / "sp500_daily.parquet")
    frame = panel.select("symbol", pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time"))
    missing = find_gaps(frame, DAY, XNYS).group_by("symbol").agg(pl.col("missing").sum())
    assert dict(missing.iter_rows()) == {"DHR": 16, "O": 16, "ES": 10, "ICE": 5, "ORCL": 2, "BMY": 2}


def test_the_exchange_bars_have_no_gaps(shared_data: Path) -> None:
    frame = pl.read_parquet(shared_data / "binance_spot_2024_1h" / "binance_spot_1h.parquet", columns=["symbol", "open_time"])
    assert find_gaps(frame.cast({"open_time": pl.Datetime("us", "UTC")}), HOUR, ALWAYS).height == 0
