"""What the adapters of all venues promise, against a real server that speaks their protocols and misbehaves."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests import http_server as fault
from tests.http_server import IMPATIENT
from tests.market.venue_cases import BINANCE, CASES, COINBASE, NOW, RECORDED, VenueCase, collect
from tests.market.venue_server import HOUR, VenueServer, candles, recorded_bars
from tidemill.calendars import ALWAYS
from tidemill.domain.errors import (
    InputError,
    MalformedError,
    RateLimitedError,
    TidemillError,
    UnavailableError,
    UnknownNameError,
)
from tidemill.domain.intervals import Interval
from tidemill.market.rest import RestSource
from tidemill.services import BreakerPolicy, RetryPolicy, ServiceOptions

START = datetime(2024, 8, 20, tzinfo=UTC)


@pytest.fixture
async def server(shared_data: Path) -> AsyncIterator[VenueServer]:
    async with VenueServer(shared_data, recorded_bars(shared_data, RECORDED), NOW) as running:
        yield running


@pytest.fixture(params=CASES, ids=lambda case: case.kind.venue)
def case(request: pytest.FixtureRequest) -> VenueCase:
    chosen: VenueCase = request.param
    return chosen


@pytest.fixture
async def source(case: VenueCase, server: VenueServer) -> AsyncIterator[RestSource]:
    made = case.source(server)
    yield made
    await made.close()


def assert_same_bars(got: pl.DataFrame, case: VenueCase, shared: Path, start: datetime | None, end: datetime | None) -> None:
    symbols = got["symbol"].unique().to_list()
    assert_frame_equal(got, case.expected(shared, symbols, start, end, got.columns), check_exact=True)


# What is asked for is what comes


async def test_the_asked_span_of_every_symbol_comes_exactly(
    case: VenueCase, source: RestSource, server: VenueServer, shared_data: Path
) -> None:
    start, end = START, datetime(2024, 9, 4, 7, tzinfo=UTC)
    got = await collect(source, case.symbols, start, end)
    assert got["symbol"].n_unique() == 3
    assert_same_bars(got, case, shared_data, start, end)
    assert got.schema["open_time"] == pl.Datetime("us", "UTC")


async def test_several_pages_join_without_a_seam(
    source: RestSource, case: VenueCase, server: VenueServer, shared_data: Path
) -> None:
    start = None if case in (BINANCE, COINBASE) else datetime(2024, 8, 8, tzinfo=UTC)
    got = await collect(source, case.symbols[:2], start)
    assert_same_bars(got, case, shared_data, start, None)
    pages = len(server.asked(case.path))
    assert pages >= {"binance": 12, "coinbase": 40, "kraken": 2}[source.venue]


@pytest.mark.parametrize(
    "offset", [timedelta(0), timedelta(minutes=1), timedelta(minutes=59, seconds=59, microseconds=999_999)]
)
async def test_a_start_and_end_off_the_grid_keep_their_meaning(
    case: VenueCase, source: RestSource, shared_data: Path, offset: timedelta
) -> None:
    start, end = START + offset, START + timedelta(hours=40) + offset
    got = await collect(source, case.symbols[:1], start, end)
    assert_same_bars(got, case, shared_data, start, end)


async def test_a_span_of_one_bar_is_one_bar(case: VenueCase, source: RestSource, shared_data: Path) -> None:
    got = await collect(source, case.symbols[:1], START, START + timedelta(hours=1))
    assert got["open_time"].to_list() == [START]


async def test_a_future_span_is_empty(case: VenueCase, source: RestSource) -> None:
    future = NOW + timedelta(days=30)
    assert (await collect(source, case.symbols, future, future + timedelta(days=1))).is_empty()


async def test_a_gap_at_the_venue_is_simply_absent(case: VenueCase, shared_data: Path) -> None:
    bars = recorded_bars(shared_data, RECORDED)
    hole = pl.col("open_time").is_between(START + timedelta(hours=5), START + timedelta(hours=9))
    async with VenueServer(shared_data, bars.filter(~hole), NOW) as server:
        source = case.source(server)
        got = await collect(source, case.symbols[:1], START, START + timedelta(hours=20))
        await source.close()
    hours = [int((time - START).total_seconds() // 3_600) for time in got["open_time"]]
    assert hours == [0, 1, 2, 3, 4, *range(10, 20)]


# Only closed bars


async def test_the_last_candle_is_left_out_while_it_is_open(case: VenueCase, source: RestSource) -> None:
    got = await collect(source, case.symbols, NOW - timedelta(hours=5))
    assert got["open_time"].max() == datetime(2024, 9, 6, 2, tzinfo=UTC)


@pytest.mark.parametrize("dated", [True, False], ids=["by the Date header", "by the time endpoint"])
@pytest.mark.parametrize("local_error", [timedelta(hours=-9), timedelta(hours=9)])
async def test_the_venues_clock_decides_and_not_ours(
    case: VenueCase, server: VenueServer, dated: bool, local_error: timedelta
) -> None:
    server.dated = dated
    ours = fault.VirtualClock(NOW + local_error)
    source = case.kind(base_url=server.url, options=IMPATIENT, clock=ours)
    got = await collect(source, case.symbols[:1], NOW - timedelta(hours=5))
    await source.close()
    assert got["open_time"].max() == datetime(2024, 9, 6, 2, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "latest"), [(0, 0), (1, 0), (2, 1), (60, 1)])
async def test_a_bar_counts_as_closed_two_seconds_after_its_end(
    case: VenueCase, shared_data: Path, seconds: int, latest: int
) -> None:
    end = datetime(2024, 9, 6, 2, tzinfo=UTC)
    async with VenueServer(shared_data, recorded_bars(shared_data, RECORDED), end + timedelta(seconds=seconds)) as server:
        source = case.source(server)
        got = await collect(source, case.symbols[:1], end - timedelta(hours=5))
        await source.close()
    assert got["open_time"].max() == datetime(2024, 9, 6, latest, tzinfo=UTC)


@pytest.mark.parametrize("dated", [True, False])
async def test_an_answer_that_takes_long_is_as_old_as_its_request(case: VenueCase, shared_data: Path, dated: bool) -> None:
    before_end = datetime(2024, 9, 6, 1, 59, 50, tzinfo=UTC)
    async with VenueServer(shared_data, recorded_bars(shared_data, RECORDED), before_end) as server:
        server.dated = dated
        source = case.source(server)
        server.always(lambda answer: server.virtual.advance(30.0) or answer, on=case.path)
        got = await collect(source, case.symbols[:1], before_end - timedelta(hours=5))
        await source.close()
    assert got["open_time"].max() == datetime(2024, 9, 6, 0, tzinfo=UTC)


@pytest.mark.parametrize(("case", "page"), [(BINANCE, 1_000), (COINBASE, 300)], indirect=["case"])
async def test_a_bar_that_closes_between_two_pages_leaves_no_hole(case: VenueCase, shared_data: Path, page: int) -> None:
    still_open = datetime(2024, 8, 30, 3, tzinfo=UTC)
    patient = ServiceOptions(retry=RetryPolicy(wait_first=0, wait_max=0, wait_jitter=0, total=1e6))
    async with VenueServer(shared_data, recorded_bars(shared_data, RECORDED), still_open + timedelta(minutes=30)) as server:
        source = case.source(server, patient)
        server.misbehave(lambda answer: answer, fault.status(429, retry_after="18000"), on=case.path)
        got = await collect(source, case.symbols[:1], still_open - (page - 1) * HOUR.delta, NOW)
        await source.close()
    assert got["open_time"].diff().drop_nulls().unique().to_list() == [HOUR.delta]
    assert got["open_time"].max() == still_open - HOUR.delta


# Bad candles


def shuffled(rows: list[list[Any]]) -> list[list[Any]]:
    return random.Random(5).sample(rows, len(rows))


def each_twice(rows: list[list[Any]]) -> list[list[Any]]:
    return [row for row in rows for _ in range(2)]


@pytest.mark.parametrize("change", [shuffled, each_twice, lambda rows: shuffled(each_twice(rows))])
async def test_candles_out_of_order_and_repeated_come_once_and_in_order(
    case: VenueCase, source: RestSource, server: VenueServer, shared_data: Path, change: Any
) -> None:
    server.always(candles(change), on=case.path)
    frames = [frame async for frame in source.bars(case.symbols[:1], HOUR, START, None)]
    for frame in frames:
        assert frame["open_time"].is_sorted()
    assert_same_bars(pl.concat(frames), case, shared_data, START, None)


async def test_two_candles_of_one_time_with_different_values_both_reach_validation(
    case: VenueCase, source: RestSource, server: VenueServer
) -> None:
    def contradict(rows: list[list[Any]]) -> list[list[Any]]:
        low = 1 if case is COINBASE else 3
        other = list(rows[0])
        other[low] = type(other[low])(float(other[low]) * 0.5)
        return [*rows, other]

    server.always(candles(contradict), on=case.path)
    got = await collect(source, case.symbols[:1], START, START + timedelta(hours=9))
    assert len(got) == 10
    assert got["open_time"].is_duplicated().sum() == 2


@pytest.mark.parametrize("bad", ["NaN", "inf", "-inf", "-1", "abc", None, [], "1e300", ""])
@pytest.mark.parametrize("position", [1, 2, 4, 5])
async def test_a_value_that_is_no_price_or_volume_is_malformed(
    case: VenueCase, source: RestSource, server: VenueServer, bad: object, position: int
) -> None:
    def spoil(rows: list[list[Any]]) -> list[list[Any]]:
        rows[len(rows) // 2][position] = bad
        return rows

    server.always(candles(spoil), on=case.path)
    with pytest.raises(MalformedError, match=f"No usable answer for {case.symbols[0]}"):
        await collect(source, case.symbols[:1], START)


@pytest.mark.parametrize("bad", ["x", -1, None, 1.5, 10**17, {}])
async def test_a_time_that_is_no_time_is_malformed(
    case: VenueCase, source: RestSource, server: VenueServer, bad: object
) -> None:
    def spoil(rows: list[list[Any]]) -> list[list[Any]]:
        rows[0][0] = bad
        return rows

    server.always(candles(spoil), on=case.path)
    with pytest.raises(MalformedError):
        await collect(source, case.symbols[:1], START)


@pytest.mark.parametrize(
    "body", [b"{}", b"[[]]", b"[[1]]", b'{"error":[],"result":{}}', b'"x"', b"null", b"5", b'[{"time":1}]']
)
async def test_an_answer_of_another_shape_is_malformed(
    case: VenueCase, source: RestSource, server: VenueServer, body: bytes
) -> None:
    server.always(lambda answer: fault.Answer(body), on=case.path)
    with pytest.raises(MalformedError):
        await collect(source, case.symbols[:1], START)


async def test_one_malformed_symbol_does_not_stop_the_others_and_is_named(
    case: VenueCase, server: VenueServer, shared_data: Path
) -> None:
    bad, *good = case.symbols
    source = case.source(server, concurrency=1)  # so that the first request is surely that of the first symbol
    server.misbehave(fault.changed(lambda value: "no"), on=case.path)
    frames: list[pl.DataFrame] = []

    async def gather() -> None:
        async for frame in source.bars([bad, *good], HOUR, START, None):
            frames.append(frame)  # what came before the error is kept

    with pytest.raises(MalformedError, match=f"No usable answer for {bad}; the other symbols are done"):
        await gather()
    await source.close()
    got = pl.concat(frames).sort("symbol", "open_time")
    assert sorted(got["symbol"].unique()) == sorted(good)
    assert_same_bars(got, case, shared_data, START, None)


# A venue in trouble


@pytest.mark.parametrize(
    "trouble",
    [
        fault.status(500),
        fault.status(503),
        fault.status(429, retry_after="3"),
        fault.reset,
        fault.cut_off,
        fault.broken_json,
        fault.packed_and_cut_off,
    ],
)
async def test_trouble_that_passes_changes_nothing_in_what_comes(
    case: VenueCase, source: RestSource, server: VenueServer, shared_data: Path, trouble: fault.Fault
) -> None:
    server.misbehave(trouble, times=3)
    server.misbehave(trouble, on=case.path, times=2)
    got = await collect(source, case.symbols, START)
    assert got["symbol"].n_unique() == 3
    assert_same_bars(got, case, shared_data, START, None)


async def test_a_venue_that_is_down_is_unavailable_and_then_left_alone(case: VenueCase, server: VenueServer) -> None:
    options = ServiceOptions(retry=IMPATIENT.retry, breaker=BreakerPolicy(failures=4, open_for=3_600.0))
    source = case.source(server, options)
    server.always(fault.status(502, b"<html>Bad gateway</html>"), on=case.path)
    with pytest.raises(UnavailableError, match=source.title):
        await collect(source, case.symbols[:1], START)
    asked = len(server.requests)
    with pytest.raises(UnavailableError, match="left alone"):
        await collect(source, case.symbols[:1], START)
    assert len(server.requests) == asked
    assert source.health().circuit == "opened"
    await source.close()


async def test_a_ban_ends_the_work_and_says_for_how_long(case: VenueCase, source: RestSource, server: VenueServer) -> None:
    server.always(fault.status(418, retry_after="600"), on=case.path)
    with pytest.raises(RateLimitedError, match=r"banned this address for 600 s|asked to wait"):
        await collect(source, case.symbols, START)
    assert len(server.asked(case.path)) <= len(case.symbols)


@pytest.mark.parametrize("trouble", [fault.endless, fault.gzip_bomb])
async def test_an_answer_without_end_is_malformed(case: VenueCase, server: VenueServer, trouble: fault.Fault) -> None:
    source = case.source(server, ServiceOptions(retry=IMPATIENT.retry, max_body=4 << 20))
    server.always(trouble, on=case.path)
    with pytest.raises(MalformedError, match="sent more than"):
        await collect(source, case.symbols[:1], START)
    await source.close()


async def test_packed_answers_are_understood(
    case: VenueCase, source: RestSource, server: VenueServer, shared_data: Path
) -> None:
    server.always(fault.packed)
    got = await collect(source, case.symbols[:1], START)
    assert_same_bars(got, case, shared_data, START, None)


async def test_leaving_early_stops_the_work(case: VenueCase, source: RestSource, server: VenueServer) -> None:
    bars = source.bars(case.symbols, HOUR, START, None)
    async for frame in bars:
        assert not frame.is_empty()
        break
    await bars.aclose()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "side_by_side" in repr(task)]


# Names


async def test_an_unknown_symbol_is_an_error_with_the_nearest_names(
    case: VenueCase, source: RestSource, server: VenueServer
) -> None:
    near = case.symbols[0]
    with pytest.raises(UnknownNameError) as caught:
        await collect(source, [near + "X"])
    assert near in caught.value.choices
    assert server.asked(case.path) == []


@pytest.mark.parametrize(
    "symbol", ["'; DROP TABLE bars; --", "../../etc/passwd", "", "A" * 10_000, "BTC\x00USD", "币安人生USDT"]
)
async def test_a_symbol_that_cannot_be_one_is_an_unknown_name(case: VenueCase, source: RestSource, symbol: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        await source.instruments([symbol])
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["7m", "2d", "45m", "9h"])
async def test_an_interval_that_the_venue_lacks_is_an_error_with_its_choices(
    case: VenueCase, source: RestSource, server: VenueServer, name: str
) -> None:
    with pytest.raises(UnknownNameError, match=f"no {source.title} bar interval named '{name}'") as caught:
        await collect(source, case.symbols[:1], interval=Interval.parse(name))
    assert {"1m", "1h", "1d"} <= set(caught.value.choices)
    assert server.requests == []


async def test_a_time_without_zone_and_a_span_backwards_are_refused(case: VenueCase, source: RestSource) -> None:
    with pytest.raises(InputError, match="time zone"):
        await collect(source, case.symbols[:1], datetime(2024, 1, 1))
    with pytest.raises(InputError, match="not before the end"):
        await collect(source, case.symbols[:1], NOW, NOW)


async def test_a_symbol_asked_twice_comes_once(case: VenueCase, source: RestSource, shared_data: Path) -> None:
    symbol = case.symbols[0]
    got = await collect(source, [symbol, symbol], START)
    assert_same_bars(got, case, shared_data, START, None)


async def test_all_instruments_come_when_none_is_named_and_none_can_be_sold_short(case: VenueCase, source: RestSource) -> None:
    instruments = await source.instruments([])
    assert len(instruments) > 100
    for instrument in instruments:
        assert (instrument.venue, instrument.calendar, instrument.can_short) == (source.venue, ALWAYS, False)
        assert instrument.lot > 0.0
        assert instrument.tick > 0.0
        assert instrument.base
        assert instrument.quote
    assert len({instrument.symbol for instrument in instruments}) == len(instruments)


async def test_the_listing_is_asked_for_once(case: VenueCase, source: RestSource, server: VenueServer) -> None:
    await asyncio.gather(*(source.instruments(case.symbols) for _ in range(5)))
    assert len(server.requests) == 1


async def test_a_listing_that_fails_fails_the_work_with_a_sentence(
    case: VenueCase, source: RestSource, server: VenueServer
) -> None:
    server.always(fault.changed(lambda value: 5))
    with pytest.raises(TidemillError, match=source.title):
        await source.instruments([])
