from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests import http_server as fault
from tests.http_server import IMPATIENT, Answer, LoopbackServer, VirtualClock
from tests.market.venue_cases import NOW, RECORDED, collect
from tests.market.venue_server import VenueServer, recorded_bars, recorded_listing
from tidemill.domain.errors import MalformedError, RefusedError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.market.binance import BASE_URL, PAGE, BinanceSource
from tidemill.services import RetryPolicy, ServiceOptions


@pytest.fixture
async def server(shared_data: Path) -> AsyncIterator[VenueServer]:
    async with VenueServer(shared_data, recorded_bars(shared_data, RECORDED), NOW) as running:
        yield running


@pytest.fixture
async def source(server: VenueServer) -> AsyncIterator[BinanceSource]:
    made = BinanceSource(base_url=server.url, options=IMPATIENT, clock=server.virtual)
    yield made
    await made.close()


async def test_the_recorded_listing_of_2021_is_read_whole(source: BinanceSource) -> None:
    instruments = {instrument.symbol: instrument for instrument in await source.instruments([])}
    assert len(instruments) == 1_695
    bitcoin: Instrument = instruments["BTCUSDT"]
    assert (bitcoin.base, bitcoin.quote) == ("BTC", "USDT")
    assert (bitcoin.lot, bitcoin.tick, bitcoin.min_notional) == (0.00001, 0.01, 10.0)
    assert instruments["ETHBTC"].tick == 0.000001
    assert all(instrument.min_notional > 0.0 for instrument in instruments.values())


async def test_the_newer_name_of_the_notional_filter_is_read(source: BinanceSource, server: VenueServer) -> None:
    def renamed(info: object) -> object:
        assert isinstance(info, dict)
        for filter_ in info["symbols"][0]["filters"]:
            if filter_["filterType"] == "MIN_NOTIONAL":
                filter_ |= {"filterType": "NOTIONAL", "minNotional": "5.00000000", "maxNotional": "9000000.0"}
        return info

    server.misbehave(fault.changed(renamed))
    assert (await source.instruments(["ETHBTC"]))[0].min_notional == 5.0


async def test_a_listed_name_that_cannot_be_a_symbol_is_left_out(source: BinanceSource, server: VenueServer) -> None:
    def renamed(info: object) -> object:
        assert isinstance(info, dict)
        info["symbols"][0]["symbol"] = "币安人生USDT"
        info["symbols"][1]["symbol"] = "../ETC"
        return info

    server.misbehave(fault.changed(renamed))
    assert len(await source.instruments([])) == 1_693


async def test_candles_come_from_a_recorded_answer_with_the_quote_volume(shared_data: Path) -> None:
    body = (shared_data / "wire_nautilus" / "binance_py" / "http_spot_market_klines.json").read_bytes()

    def respond(request: fault.Request) -> Answer:
        return Answer(recorded_listing(shared_data, "binance") if "exchangeInfo" in request.path else body)

    async with LoopbackServer(respond, clock=VirtualClock()) as server:
        source = BinanceSource(base_url=server.url, options=IMPATIENT, clock=VirtualClock())
        got = await collect(source, ["BTCUSDT"], interval=Interval.parse("1m"))
        await source.close()
    first = got.row(0, named=True)
    assert first["open_time"] == datetime(2021, 10, 22, 23, 3, tzinfo=UTC)
    assert [first[name] for name in ("open", "high", "low", "close", "volume", "quote_volume")] == [
        60685.22,
        60729.84,
        60670.9,
        60719.27,
        21.63272,
        1313200.0134041,
    ]
    assert got["open_time"].diff().drop_nulls().unique().to_list() == [timedelta(minutes=1)]


async def test_a_page_holds_a_thousand_and_the_next_begins_after_it(source: BinanceSource, server: VenueServer) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    await collect(source, ["BTCUSDT"], start, start + timedelta(hours=2 * PAGE + 10))
    asked = [int(request.params["startTime"]) for request in server.asked("/klines")]
    first = int(start.timestamp() * 1_000)
    assert asked == [first + page * PAGE * 3_600_000 for page in range(3)]
    assert {request.params["limit"] for request in server.requests[1:]} == {str(PAGE)}
    last = first + (2 * PAGE + 9) * 3_600_000
    assert {last <= int(request.params["endTime"]) < last + 3_600_000 for request in server.requests[1:]} == {True}


async def test_without_a_start_history_begins_with_the_first_candle_there_is(
    source: BinanceSource, server: VenueServer
) -> None:
    got = await collect(source, ["BTCUSDT"], None, datetime(2024, 1, 3, tzinfo=UTC))
    assert got["open_time"].min() == datetime(2024, 1, 1, tzinfo=UTC)
    assert server.asked("/klines")[0].params["startTime"] == "0"


async def test_a_venue_that_repeats_its_page_is_malformed_and_not_asked_for_ever(
    source: BinanceSource, server: VenueServer
) -> None:
    page: list[bytes] = []

    def same(answer: Answer) -> Answer:
        page.append(answer.body)
        return Answer(page[0])

    server.always(same, on="/klines")
    with pytest.raises(MalformedError, match="repeats the candles of BTCUSDT"):
        await collect(source, ["BTCUSDT"], datetime(2024, 1, 1, tzinfo=UTC))
    assert len(server.asked("/klines")) <= 3


async def test_a_candle_that_the_venue_itself_ends_later_is_open(source: BinanceSource, server: VenueServer) -> None:
    def later(rows: object) -> object:
        assert isinstance(rows, list)
        rows[-2][6] = int(NOW.timestamp() * 1_000) + 1
        return rows

    server.always(fault.changed(later), on="/klines")
    got = await collect(source, ["BTCUSDT"], NOW - timedelta(hours=5))
    assert got["open_time"].max() == datetime(2024, 9, 6, 1, tzinfo=UTC)


async def test_microseconds_instead_of_milliseconds_are_refused(source: BinanceSource, server: VenueServer) -> None:
    server.always(
        fault.changed(lambda rows: [[row[0] * 1_000, *row[1:]] for row in rows] if isinstance(rows, list) else rows),
        on="/klines",
    )
    with pytest.raises(MalformedError):
        await collect(source, ["BTCUSDT"], NOW - timedelta(hours=5))


async def test_a_symbol_that_the_listing_has_and_the_candles_refuse_is_refused_with_the_venues_words(
    source: BinanceSource,
) -> None:
    with pytest.raises(RefusedError, match="Invalid symbol") as caught:
        await collect(source, ["ETHBTC"])
    assert caught.value.status == 400


# Weight


async def test_the_limit_in_force_is_the_one_of_the_listing(source: BinanceSource, server: VenueServer) -> None:
    server.weight_limit = 2_400
    await source.instruments([])
    assert source.budget.limit == 2_400.0


async def test_the_weight_of_a_minute_is_never_passed_and_nothing_is_lost(source: BinanceSource, server: VenueServer) -> None:
    server.weight_limit = 40
    start = datetime(2024, 3, 1, tzinfo=UTC)
    got = await collect(source, list(RECORDED), start)
    assert len(got) == 3 * int((NOW.replace(minute=0) - start).total_seconds() // 3_600)
    assert server.weight_refusals == 0
    assert len(server.virtual.slept) > 0


async def test_weight_used_by_others_behind_the_same_address_counts(source: BinanceSource, server: VenueServer) -> None:
    server.weight_limit = 1_000
    await source.instruments(["BTCUSDT"])
    server.used_elsewhere(770)
    await collect(source, ["BTCUSDT"], datetime(2024, 1, 1, tzinfo=UTC))
    assert server.weight_refusals == 0
    assert sum(server.virtual.slept) >= 20.0  # NOW is at second 0 of its minute, so a whole minute was waited for


async def test_a_refusal_for_weight_is_waited_out_as_the_venue_says(server: VenueServer) -> None:
    options = ServiceOptions(retry=RetryPolicy(attempts=3, wait_first=0, wait_max=0, wait_jitter=0, total=120.0))
    source = BinanceSource(base_url=server.url, options=options, clock=server.virtual)
    await source.instruments(["BTCUSDT"])
    server.used_elsewhere(10_000)
    got = await collect(source, ["BTCUSDT"], NOW - timedelta(hours=5))
    assert len(got) == 4
    assert server.weight_refusals == 1
    assert sum(server.virtual.slept) >= 59.0
    await source.close()


def test_the_address_is_the_public_one_unless_told() -> None:
    assert BASE_URL == "https://api.binance.com"
    assert BinanceSource().health().host == "api.binance.com"


async def test_the_frame_has_the_columns_of_the_port(source: BinanceSource) -> None:
    got = await collect(source, ["BTCUSDT"], NOW - timedelta(hours=5))
    assert got.columns == ["symbol", "open_time", "open", "high", "low", "close", "volume", "quote_volume"]
    assert set(got.dtypes[2:]) == {pl.Float64}
