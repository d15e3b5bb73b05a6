from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.http_server import IMPATIENT
from tests.market.venue_cases import NOW, RECORDED, collect
from tests.market.venue_server import VenueServer, recorded_bars
from tidemill.market.coinbase import PAGE, CoinbaseSource


@pytest.fixture
async def server(shared_data: Path) -> AsyncIterator[VenueServer]:
    async with VenueServer(shared_data, recorded_bars(shared_data, RECORDED), NOW) as running:
        yield running


@pytest.fixture
async def source(server: VenueServer) -> AsyncIterator[CoinbaseSource]:
    made = CoinbaseSource(base_url=server.url, options=IMPATIENT, clock=server.virtual)
    yield made
    await made.close()


async def test_the_recorded_listing_of_2021_is_read_whole(source: CoinbaseSource) -> None:
    instruments = {instrument.symbol: instrument for instrument in await source.instruments([])}
    assert len(instruments) == 162
    bitcoin = instruments["BTC-GBP"]
    assert (bitcoin.base, bitcoin.quote) == ("BTC", "GBP")
    assert (bitcoin.lot, bitcoin.tick, bitcoin.min_notional) == (0.00000001, 0.01, 10.0)


async def test_a_page_asks_for_three_hundred_candles_both_ends_counted(source: CoinbaseSource, server: VenueServer) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    await collect(source, ["BTC-USD"], start, start + timedelta(hours=PAGE + 1))
    first, second = (request.params for request in server.asked("/candles"))
    assert (first["granularity"], first["start"], first["end"]) == ("3600", "2024-01-01T00:00:00Z", "2024-01-13T11:00:00Z")
    assert (second["start"], second["end"]) == ("2024-01-13T12:00:00Z", "2024-01-13T12:00:00Z")


async def test_the_columns_are_not_mixed_up(source: CoinbaseSource, shared_data: Path) -> None:
    start = datetime(2024, 5, 5, 5, tzinfo=UTC)
    got = (await collect(source, ["BTC-USD"], start, start + timedelta(hours=1))).row(0, named=True)
    recorded = (pl.col("symbol") == "BTCUSDT") & (pl.col("open_time") == start)
    told = recorded_bars(shared_data, RECORDED).row(by_predicate=recorded, named=True)
    for name in ("open", "high", "low", "close", "volume"):
        assert got[name] == told[name]
    assert "quote_volume" not in got


async def test_without_a_start_the_first_day_is_looked_for_backwards(source: CoinbaseSource, server: VenueServer) -> None:
    got = await collect(source, ["BTC-USD"], None, datetime(2024, 1, 20, tzinfo=UTC))
    assert got["open_time"].min() == datetime(2024, 1, 1, tzinfo=UTC)
    days = [request for request in server.asked("/candles") if request.params["granularity"] == "86400"]
    assert len(days) == 2


async def test_requests_keep_the_pace_of_eight_a_second(source: CoinbaseSource, server: VenueServer) -> None:
    await collect(source, ["BTC-USD", "ETH-USD"], datetime(2024, 2, 1, tzinfo=UTC))
    requests = len(server.requests)
    assert requests > 30
    assert server.virtual.monotonic() >= (requests - 8) / 8.0


async def test_a_time_that_the_venue_leaves_empty_is_no_page_too_many(source: CoinbaseSource, server: VenueServer) -> None:
    before = datetime(2022, 1, 1, tzinfo=UTC)
    got = await collect(source, ["BTC-USD"], before, before + timedelta(hours=2 * PAGE))
    assert got.is_empty()
    assert len(server.asked("/candles")) == 2
