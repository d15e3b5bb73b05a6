from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import http_server as fault
from tests.http_server import IMPATIENT, Answer, LoopbackServer, Request, VirtualClock
from tests.market.venue_cases import NOW, RECORDED, collect
from tests.market.venue_server import VenueServer, recorded_bars
from tidemill.domain.errors import InputError, MalformedError, RateLimitedError, RefusedError, UnavailableError
from tidemill.domain.intervals import Interval
from tidemill.market.kraken import DEPTH, KrakenSource

MINUTE = Interval.parse("1m")


@pytest.fixture
async def server(shared_data: Path) -> AsyncIterator[VenueServer]:
    async with VenueServer(shared_data, recorded_bars(shared_data, RECORDED), NOW) as running:
        yield running


@pytest.fixture
async def source(server: VenueServer) -> AsyncIterator[KrakenSource]:
    made = KrakenSource(base_url=server.url, options=IMPATIENT, clock=server.virtual)
    yield made
    await made.close()


@pytest.fixture
async def recorded(shared_data: Path) -> AsyncIterator[LoopbackServer]:
    """Answers that the real venue gave on 2025-11-11: 721 candles of a minute, the last one four seconds old."""
    folder = shared_data / "wire_nautilus" / "kraken" / "test_data"
    names = {"/0/public/OHLC": "http_ohlc.json", "/0/public/AssetPairs": "http_asset_pairs.json"}
    names["/0/public/Time"] = "http_server_time.json"

    def respond(request: Request) -> Answer:
        return Answer((folder / names[request.path]).read_bytes())

    async with LoopbackServer(respond, clock=VirtualClock(datetime(2025, 11, 11, 0, 17, 4, tzinfo=UTC))) as running:
        yield running


@pytest.mark.parametrize("dated", [True, False])
async def test_of_721_recorded_candles_the_720_closed_ones_come(recorded: LoopbackServer, dated: bool) -> None:
    recorded.dated = dated
    source = KrakenSource(base_url=recorded.url, options=IMPATIENT, clock=VirtualClock())
    got = await collect(source, ["BTC-USDT"], interval=MINUTE)
    await source.close()
    assert len(got) == DEPTH
    assert got["open_time"].min() == datetime(2025, 11, 10, 12, 17, tzinfo=UTC)
    assert got["open_time"].max() == datetime(2025, 11, 11, 0, 16, tzinfo=UTC)
    assert got["open_time"].diff().drop_nulls().unique().to_list() == [timedelta(minutes=1)]
    assert got["close"][-1] == 105899.4
    assert (got["volume"] == 0.0).any()


async def test_the_recorded_pair_is_an_instrument_under_everybodys_name(recorded: LoopbackServer) -> None:
    source = KrakenSource(base_url=recorded.url, options=IMPATIENT, clock=VirtualClock())
    (bitcoin,) = await source.instruments([])
    await source.close()
    assert (bitcoin.symbol, bitcoin.base, bitcoin.quote) == ("BTC-USDT", "BTC", "USDT")
    assert (bitcoin.lot, bitcoin.tick, bitcoin.min_notional) == (1e-8, 0.1, 0.5)


async def test_a_candle_that_the_venue_does_not_call_final_is_left_out_whatever_the_clock(recorded: LoopbackServer) -> None:
    recorded.clock = VirtualClock(datetime(2025, 11, 12, tzinfo=UTC))
    source = KrakenSource(base_url=recorded.url, options=IMPATIENT, clock=VirtualClock())
    got = await collect(source, ["BTC-USDT"], interval=MINUTE)
    await source.close()
    assert got["open_time"].max() == datetime(2025, 11, 11, 0, 16, tzinfo=UTC)


@pytest.mark.parametrize("name", ["BTC-USD", "XBTUSD", "XXBTZUSD", "XBT/USD"])
async def test_a_pair_goes_by_its_canonical_name_and_by_the_venues_own(
    source: KrakenSource, server: VenueServer, name: str
) -> None:
    got = await collect(source, [name], NOW - timedelta(hours=5))
    assert got["symbol"].unique().to_list() == ["BTC-USD"]
    assert server.asked("/OHLC")[0].params["pair"] == "XBTUSD"


async def test_the_recorded_listing_of_2021_has_no_dark_pools_and_everybodys_names(source: KrakenSource) -> None:
    symbols = {instrument.symbol for instrument in await source.instruments([])}
    assert len(symbols) == 293
    assert {"BTC-USD", "ETH-BTC", "DOGE-USD"} <= symbols
    assert not any(symbol.startswith(("XBT-", "XDG-")) or symbol.endswith(".d") for symbol in symbols)


async def test_a_start_older_than_720_bars_is_an_error_that_says_from_when_there_are_bars(source: KrakenSource) -> None:
    oldest = NOW.replace(minute=0) - timedelta(hours=DEPTH)
    with pytest.raises(InputError, match="latest 720 bars of 1h, now from 2024-08-07T03:00Z"):
        await collect(source, ["BTC-USD"], oldest - timedelta(hours=1))
    got = await collect(source, ["BTC-USD"], oldest)
    assert got["open_time"].min() == oldest
    assert len(got) == DEPTH


async def test_without_a_start_all_that_the_venue_serves_comes(source: KrakenSource) -> None:
    assert len(await collect(source, ["BTC-USD"])) == DEPTH


@pytest.mark.parametrize("name", ["1w", "15d"])
def test_bars_off_the_grid_of_weeks_are_not_offered(name: str) -> None:
    assert Interval.parse(name) not in KrakenSource.intervals


@pytest.mark.parametrize("text", ["EAPI:Rate limit exceeded", "EGeneral:Too many requests"])
async def test_a_rate_limit_told_with_status_200_is_waited_out(source: KrakenSource, server: VenueServer, text: str) -> None:
    server.misbehave(says(text), on="/OHLC")
    got = await collect(source, ["BTC-USD"], NOW - timedelta(hours=5))
    assert len(got) == 4
    assert IMPATIENT.retry.unsaid_pause in server.virtual.slept


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("EAPI:Rate limit exceeded", RateLimitedError),
        ("EService:Unavailable", UnavailableError),
        ("EService:Busy", UnavailableError),
        ("EGeneral:Internal error", UnavailableError),
        ("EQuery:Unknown asset pair", RefusedError),
        ("EGeneral:Invalid arguments", RefusedError),
    ],
)
async def test_an_error_told_with_status_200_has_its_place_in_the_tree(
    source: KrakenSource, server: VenueServer, text: str, error: type[Exception]
) -> None:
    server.always(says(text))
    with pytest.raises(error, match=text):
        await source.instruments([])


def says(text: str) -> fault.Fault:
    return fault.changed(lambda value: {"error": [text]})


@pytest.mark.parametrize(
    "result",
    [{"XBTUSD": []}, {"last": 5}, {"A": [], "B": [], "last": 5}, {"XBTUSD": [], "last": []}, {"XBTUSD": 5, "last": 5}],
)
async def test_candles_without_the_last_final_time_or_of_several_pairs_are_malformed(
    source: KrakenSource, server: VenueServer, result: dict[str, object]
) -> None:
    server.always(fault.changed(lambda value: {"error": [], "result": result}), on="/OHLC")
    with pytest.raises(MalformedError):
        await collect(source, ["BTC-USD"])


async def test_requests_keep_the_pace_of_one_a_second(source: KrakenSource, server: VenueServer) -> None:
    symbols = ["BTC-USD", "ETH-USD", "LTC-USD"]
    for _ in range(4):
        await collect(source, symbols, NOW - timedelta(hours=5))
    assert server.virtual.monotonic() >= len(server.requests) - 3
