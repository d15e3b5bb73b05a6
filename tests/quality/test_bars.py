"""Every rule that refuses a row, every flag that keeps one, on made rows and on the real stock panel."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS, QuarantineReason
from tidemill.quality.bars import Validated, merge, validate_bars
from tidemill.quality.flags import Flag, flag_bars

DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")
NOW = datetime(2024, 6, 1, tzinfo=UTC)
MONDAY = datetime(2024, 1, 8, tzinfo=UTC)


def row(**changes: object) -> dict[str, object]:
    return {"symbol": "AB", "open_time": MONDAY, "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0} | changes


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    made = pl.DataFrame(list(rows), schema_overrides={"open_time": pl.Datetime("us", "UTC")}, strict=False)
    return made.with_row_index("source_line", offset=2)


def judge(raw: pl.DataFrame, interval: Interval = DAY, calendar: str = XNYS) -> Validated:
    return validate_bars(raw, interval=interval, calendar=calendar, now=NOW, source="test.csv", venue="test")


TIME = pl.Datetime("us", "UTC")
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"unreadable": "low: 'abc'", "low": None}, QuarantineReason.UNREADABLE, "low: 'abc'"),
        ({"close": None}, QuarantineReason.NULL, "close missing"),
        ({"open_time": None, "volume": None}, QuarantineReason.NULL, "open_time, volume missing"),
        ({"symbol": None}, QuarantineReason.NULL, "symbol missing"),
        ({"symbol": "../etc/passwd"}, QuarantineReason.BAD_SYMBOL, "not a symbol"),
        ({"symbol": "'; DROP TABLE bars; --"}, QuarantineReason.BAD_SYMBOL, "not a symbol"),
        ({"high": NAN}, QuarantineReason.NON_FINITE, "high NaN"),
        ({"volume": INF}, QuarantineReason.NON_FINITE, "volume inf"),
        ({"low": 0.0}, QuarantineReason.NON_POSITIVE_PRICE, "low 0.0"),
        ({"open": -1.0}, QuarantineReason.NON_POSITIVE_PRICE, "open -1.0"),
        ({"volume": -1.0}, QuarantineReason.NEGATIVE_VOLUME, "volume -1.0"),
        ({"high": 10.5}, QuarantineReason.HIGH_LOW, "high 10.5"),
        ({"low": 10.5}, QuarantineReason.HIGH_LOW, "low 10.5"),
        ({"high": 8.0}, QuarantineReason.HIGH_LOW, "high 8.0"),
        ({"open_time": MONDAY + timedelta(hours=5)}, QuarantineReason.OFF_GRID, "does not open a 1d bar"),
        ({"open_time": MONDAY - timedelta(days=1)}, QuarantineReason.CLOSED_DAY, "is not a session of XNYS"),
        ({"open_time": datetime(2024, 3, 29, tzinfo=UTC)}, QuarantineReason.CLOSED_DAY, "2024-03-29"),
        ({"open_time": datetime(2024, 6, 3, tzinfo=UTC)}, QuarantineReason.FUTURE, "is not closed at 2024-06-01"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_and_line_and_the_others_stay(
    changes: dict[str, object], reason: QuarantineReason, detail: str
) -> None:
    raw = frame(row(open_time=MONDAY + timedelta(days=1), unreadable=None), row(**changes))
    outcome = judge(raw)
    (refused,) = outcome.quarantine.iter_rows(named=True)
    assert refused["reason"] == reason
    assert detail in refused["detail"]
    assert (refused["source_line"], refused["source"], refused["venue"], refused["interval"]) == (3, "test.csv", "test", "1d")
    assert refused["symbol"] == changes.get("symbol", "AB")
    assert outcome.good.height == 1


def test_a_good_row_becomes_a_bar_that_is_known_at_its_close() -> None:
    (bar,) = judge(frame(row())).good.iter_rows(named=True)
    assert tuple(bar) == BAR_COLUMNS
    assert bar["known_at"] == MONDAY + timedelta(days=1)
    assert bar["quote_volume"] is None


def test_a_bar_counts_as_closed_from_its_end_on() -> None:
    raw = frame(row(open_time=NOW - timedelta(hours=1)), row(open_time=NOW))
    outcome = judge(raw, HOUR, ALWAYS)
    assert outcome.good["open_time"].to_list() == [NOW - timedelta(hours=1)]
    assert outcome.reasons() == {"future": 1}


def test_weekends_are_open_on_a_venue_that_never_closes() -> None:
    assert judge(frame(row(open_time=MONDAY - timedelta(days=1))), DAY, ALWAYS).good.height == 1


def test_hourly_stock_bars_may_start_with_the_session_or_on_the_clock() -> None:
    opening = datetime(2024, 1, 8, 14, 30, tzinfo=UTC)
    summer = datetime(2024, 5, 6, 13, 30, tzinfo=UTC)
    raw = frame(
        *(row(open_time=time) for time in (opening, opening + timedelta(minutes=30), opening + timedelta(minutes=7), summer))
    )
    outcome = judge(raw, HOUR)
    assert outcome.good.height == 3
    assert outcome.reasons() == {"off_grid": 1}


def test_weekly_bars_open_on_mondays() -> None:
    raw = frame(row(open_time=MONDAY), row(open_time=MONDAY + timedelta(days=1)))
    assert judge(raw, Interval.parse("1w")).reasons() == {"off_grid": 1}


def test_equal_duplicates_are_one_bar_and_conflicting_ones_are_all_refused() -> None:
    tuesday = MONDAY + timedelta(days=1)
    raw = frame(
        row(),
        row(),
        row(),
        row(open_time=tuesday),
        row(open_time=tuesday, close=10.0),
        row(open_time=tuesday),
        row(symbol="CD"),
    )
    outcome = judge(raw)
    assert outcome.good.select("symbol", "open_time").rows() == [("AB", MONDAY), ("CD", MONDAY)]
    assert outcome.duplicates == 2
    assert outcome.quarantine["reason"].to_list() == ["conflicting_duplicate"] * 3
    assert outcome.quarantine["source_line"].to_list() == [5, 6, 7]


def test_rows_in_any_order_come_out_sorted() -> None:
    days = [MONDAY + timedelta(days=n) for n in (3, 0, 4, 1)]
    raw = frame(*(row(symbol=symbol, open_time=day) for symbol in ("ZZ", "AB") for day in days))
    keys = judge(raw).good.select("symbol", "open_time").rows()
    assert keys == sorted(keys)
    assert len(keys) == 8


def test_frames_without_rows_are_judged_too() -> None:
    outcome = judge(frame(row()).clear())
    assert (outcome.good.height, outcome.quarantine.height, outcome.flags.height, outcome.duplicates) == (0, 0, 0, 0)
    only_bad = judge(frame(row(close=None)))
    assert (only_bad.good.height, only_bad.quarantine.height) == (0, 1)


def test_a_missing_column_and_a_time_of_another_type_are_refused() -> None:
    with pytest.raises(InputError, match="lack the column high"):
        judge(frame(row()).drop("high"))
    with pytest.raises(InputError, match="must hold dates or times"):
        judge(frame(row()).with_columns(open_time=pl.lit("2024-01-08")))


def test_the_adjusted_close_travels_beside_the_good_bars() -> None:
    outcome = judge(frame(row(adjusted_close=5.5), row(open_time=MONDAY + timedelta(days=1), close=None, adjusted_close=5.0)))
    assert outcome.adjusted is not None
    assert outcome.adjusted.select("close", "adjusted_close").rows() == [(11.0, 5.5)]
    assert judge(frame(row())).adjusted is None


def test_chunks_add_up() -> None:
    parts = [judge(frame(row(), row(close=None))), judge(frame(row(symbol="AA"), row(symbol="AA")))]
    together = merge(parts)
    assert together.good["symbol"].to_list() == ["AA", "AB"]
    assert (together.quarantine.height, together.duplicates) == (1, 1)
    with pytest.raises(InputError):
        merge([])


prices = st.one_of(st.none(), st.floats(), st.floats(0.5, 50.0), st.floats(0.5, 50.0))
rows = st.builds(
    row,
    symbol=st.sampled_from(["AB", "CD", "not a symbol", None]),
    open_time=st.one_of(st.none(), st.integers(-40, 200).map(lambda n: MONDAY + timedelta(hours=6 * n))),
    open=prices, high=prices, low=prices, close=prices, volume=prices,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=30))
def test_every_row_is_a_bar_or_a_duplicate_or_quarantined_and_every_bar_keeps_the_rules(
    given_rows: list[dict[str, object]],
) -> None:
    outcome = judge(frame(*given_rows))
    assert outcome.good.height + outcome.quarantine.height + outcome.duplicates == len(given_rows)
    for bar in outcome.good.iter_rows(named=True):
        assert 0 < bar["low"] <= min(bar["open"], bar["close"])
        assert max(bar["open"], bar["close"]) <= bar["high"] < INF
        assert 0 <= bar["volume"] < INF
        assert bar["open_time"].weekday() < 5
    assert outcome.good.select("symbol", "open_time").is_unique().all()
    assert judge(outcome.good).good.equals(outcome.good)


# --- flags -----------------------------------------------------------------------------------------------------------------


def walk(closes: list[float], opens: list[float] | None = None, volume: float = 1.0) -> pl.DataFrame:
    times = [MONDAY + timedelta(days=n) for n in range(len(closes))]
    return pl.DataFrame(
        {
            "symbol": ["AB"] * len(closes), "open_time": times, "open": opens or closes, "close": closes,
            "volume": [volume] * len(closes), "known_at": [time + timedelta(days=1) for time in times],
        },
        schema_overrides={"open_time": TIME, "known_at": TIME, "open": pl.Float64, "close": pl.Float64},
        strict=False,
    )  # fmt: skip


def flags_of(bars: pl.DataFrame, *, has_actions: bool = False) -> list[tuple[int, str, int]]:
    found = flag_bars(bars, has_actions=has_actions)
    return [
        ((r[0] - MONDAY).days, r[1], (r[2] - MONDAY).days) for r in found.select("open_time", "flag", "flagged_at").iter_rows()
    ]


def test_a_halved_close_that_comes_back_is_a_spike_known_at_the_close_of_the_next_bar() -> None:
    assert flags_of(walk([36, 35, 17.87, 35.9, 35.8], [36, 35, 35.2, 35.8, 35.8])) == [(2, Flag.SPIKE, 4)]


def test_a_halved_close_that_stays_is_a_suspected_action_unless_the_source_tells_actions() -> None:
    bars = walk([45, 45.4, 17, 16.8, 17.1])
    assert flags_of(bars) == [(2, Flag.SUSPECTED_ACTION, 4)]
    assert flags_of(bars, has_actions=True) == []


def test_a_fall_within_the_day_and_a_gap_that_closes_are_no_suspected_actions() -> None:
    assert flags_of(walk([50, 30, 30, 30], [50, 49, 30, 30])) == []
    assert flags_of(walk([50, 48, 49, 49], [50, 30, 48, 49])) == []


def test_a_bar_without_volume_is_flagged_at_its_close() -> None:
    assert flags_of(walk([10, 10], volume=0.0)) == [(0, Flag.ZERO_VOLUME, 1), (1, Flag.ZERO_VOLUME, 2)]


def test_neighbours_of_another_symbol_make_no_spike() -> None:
    bars = pl.concat(
        [walk([100, 100]), walk([10]).with_columns(symbol=pl.lit("BB")), walk([100, 100]).with_columns(symbol=pl.lit("CC"))]
    )
    assert flag_bars(bars, has_actions=False).height == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([10.0, 10.5, 20.0, 5.0, NAN]), min_size=1, max_size=14), st.integers(1, 14))
def test_what_is_flagged_by_a_moment_does_not_depend_on_later_bars(closes: list[float], cut: int) -> None:
    bars = walk(closes)
    moment = MONDAY + timedelta(days=cut)
    whole = flag_bars(bars, has_actions=False).filter(pl.col("flagged_at") <= moment)
    assert flag_bars(bars.filter(pl.col("known_at") <= moment), has_actions=False).equals(whole)


# --- the real stock panel --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def panel(shared_data: Path) -> Validated:
    raw = pl.read_parquet(shared_data / "sp500_daily_2013_2018" / "sp500_daily.parquet").rename({"date": "open_time"})
    return judge(raw.with_row_index("source_line", offset=1))


def test_exactly_the_known_defects_of_the_stock_panel_are_refused(panel: Validated) -> None:
    assert panel.reasons() == {"high_low": 12, "null": 11}
    assert (panel.good.height, panel.duplicates) == (619_040 - 23, 0)
    nulls = panel.quarantine.filter(reason="null").select("symbol", pl.col("open_time").dt.to_string("%Y-%m-%d")).rows()
    assert nulls == [
        ("BHF", "2017-07-26"), ("DHR", "2015-07-17"), ("DHR", "2016-01-12"), ("ES", "2015-07-17"), ("FTV", "2016-07-01"),
        ("O", "2015-07-17"), ("O", "2016-01-12"), ("REGN", "2015-06-09"), ("UA", "2016-04-07"), ("VRTX", "2015-05-12"),
        ("WRK", "2015-06-26"),
    ]  # fmt: skip
    broken = panel.quarantine.filter(reason="high_low")["symbol"].to_list()
    assert broken == ["AOS", "BBY", "CHD", "CHK", "DHR", "IP", "LNT", "O", "O", "SPG", "UA", "WRK"]


def test_the_half_priced_tick_of_lnt_is_flagged_though_its_row_is_refused(panel: Validated) -> None:
    (spike,) = panel.flags.filter(symbol="LNT").iter_rows(named=True)
    assert (spike["open_time"], spike["flag"]) == (datetime(2016, 5, 19, tzinfo=UTC), Flag.SPIKE)
    assert spike["flagged_at"] == datetime(2016, 5, 21, tzinfo=UTC)
    assert panel.good.filter(symbol="LNT", open_time=datetime(2016, 5, 19, tzinfo=UTC)).height == 0


def test_the_unadjusted_spin_offs_of_the_panel_are_suspected(panel: Validated) -> None:
    suspected = panel.flags.filter(flag=Flag.SUSPECTED_ACTION.value).select(
        "symbol", pl.col("open_time").dt.date().cast(pl.String)
    )
    assert set(suspected.rows()) == {
        ("NI", "2015-07-02"), ("EBAY", "2015-07-20"), ("DISCA", "2014-08-07"), ("DISCK", "2014-08-07"), ("BAX", "2015-07-01"),
        ("VRTX", "2013-04-19"),
    }  # fmt: skip
    spikes = panel.flags.filter(flag=Flag.SPIKE.value)["symbol"].to_list()
    assert spikes == ["COTY", "EFX", "FLR", "LNT", "MPC", "MRK", "MRO", "NWL", "O"]
