"""One case for each venue adapter, for tests of what all of them promise."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from tests.http_server import IMPATIENT
from tests.market.venue_server import HOUR, VenueServer, recorded_bars
from tidemill.domain.intervals import Interval
from tidemill.market.binance import BinanceSource
from tidemill.market.coinbase import CoinbaseSource
from tidemill.market.kraken import KrakenSource
from tidemill.market.rest import RestSource
from tidemill.services import ServiceOptions

RECORDED = ("BTCUSDT", "ETHUSDT", "LTCUSDT")
# The last recorded bar opened at 03:00: it is open.
NOW = datetime(2024, 9, 6, 3, 30, tzinfo=UTC)


@dataclass(frozen=True)
class VenueCase:
    """`names`: recorded pair → symbol at the venue; `path`: part of the path of its candles."""

    kind: type[Any]
    names: dict[str, str]
    path: str

    def source(self, server: VenueServer, options: ServiceOptions = IMPATIENT, **more: Any) -> RestSource:
        made: RestSource = self.kind(base_url=server.url, options=options, clock=server.virtual, **more)
        return made

    @property
    def symbols(self) -> list[str]:
        return list(self.names.values())

    def expected(
        self, shared: Path, symbols: Sequence[str], start: datetime | None, end: datetime | None, columns: Sequence[str]
    ) -> pl.DataFrame:
        """The recorded bars that the source must give, in its columns."""
        bars = recorded_bars(shared, RECORDED).with_columns(pl.col("symbol").replace(self.names))
        bars = bars.filter(pl.col("symbol").is_in(list(symbols)), pl.col("open_time") + HOUR.delta <= NOW)
        if start is not None:
            bars = bars.filter(pl.col("open_time") >= start)
        if end is not None:
            bars = bars.filter(pl.col("open_time") < end)
        return bars.select(columns).sort("symbol", "open_time")


BINANCE = VenueCase(BinanceSource, {name: name for name in RECORDED}, "/klines")
COINBASE = VenueCase(CoinbaseSource, dict(zip(RECORDED, ("BTC-USD", "ETH-USD", "LTC-USD"), strict=True)), "/candles")
KRAKEN = VenueCase(KrakenSource, dict(zip(RECORDED, ("BTC-USD", "ETH-USD", "LTC-USD"), strict=True)), "/OHLC")
CASES = [BINANCE, COINBASE, KRAKEN]


async def collect(
    source: RestSource,
    symbols: Sequence[str],
    start: datetime | None = None,
    end: datetime | None = None,
    interval: Interval = HOUR,
) -> pl.DataFrame:
    """All bars of the source as one frame by symbol and time."""
    frames = [frame async for frame in source.bars(symbols, interval, start, end)]
    return pl.concat(frames).sort("symbol", "open_time", maintain_order=True) if frames else pl.DataFrame()
