"""Binance spot: public REST candles (`/api/v3/klines`) and instruments (`/api/v3/exchangeInfo`)."""

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from tidemill.calendars import ALWAYS
from tidemill.domain.errors import MalformedError
from tidemill.domain.intervals import EPOCH, Interval, epoch_microseconds
from tidemill.domain.market import Instrument
from tidemill.market.pacing import WeightBudget
from tidemill.market.rest import (
    Increment,
    Listing,
    Price,
    RestSource,
    Span,
    Volume,
    candle_frame,
    last_closed,
    settled,
    usable,
)
from tidemill.services import Clock, ServiceOptions

if TYPE_CHECKING:
    import polars as pl

BASE_URL = "https://api.binance.com"
PAGE = 1_000
_KLINES_WEIGHT = 2.0
_LISTING_WEIGHT = 20.0
# What the venue allowed in 2021; the limit in force is read with the instruments.
_LOWEST_LIMIT = 1_200.0

# Milliseconds; the bound refuses microseconds, which the venue sends to those who ask for them.
_Millis = Annotated[int, msgspec.Meta(ge=0, lt=10_000_000_000_000)]


class _Kline(msgspec.Struct, array_like=True, frozen=True):
    open_time: _Millis
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Volume
    close_time: _Millis
    quote_volume: Volume


class _Filter(msgspec.Struct, rename="camel", frozen=True):
    filter_type: str
    tick_size: Increment = 0.0
    step_size: Increment = 0.0
    min_notional: Increment = 0.0


class _Symbol(msgspec.Struct, rename="camel", frozen=True):
    symbol: str
    base_asset: str
    quote_asset: str
    filters: list[_Filter]


class _RateLimit(msgspec.Struct, rename="camel", frozen=True):
    rate_limit_type: str
    interval: str
    interval_num: int
    limit: Annotated[int, msgspec.Meta(gt=0)]


class _ExchangeInfo(msgspec.Struct, rename="camel", frozen=True):
    rate_limits: list[_RateLimit]
    symbols: list[_Symbol]


class _Time(msgspec.Struct, rename="camel", frozen=True):
    server_time: _Millis


_KLINES = msgspec.json.Decoder(list[_Kline], strict=False)
_EXCHANGE_INFO = msgspec.json.Decoder(_ExchangeInfo, strict=False)
_TIME = msgspec.json.Decoder(_Time)


class BinanceSource(RestSource):
    """Public candles of Binance spot. Symbols are the venue's own: BTCUSDT. Nothing can be sold short."""

    venue: ClassVar[str] = "binance"
    title: ClassVar[str] = "Binance"
    intervals: ClassVar[Mapping[Interval, str]] = {
        Interval.parse(name): name
        for name in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w")
    }

    def __init__(
        self,
        *,
        base_url: str = BASE_URL,
        options: ServiceOptions | None = None,
        clock: Clock | None = None,
        concurrency: int = 8,
    ) -> None:
        self.budget = WeightBudget(_LOWEST_LIMIT, clock=clock)
        super().__init__(base_url, pace=self.budget, options=options, clock=clock, concurrency=concurrency)

    async def _listings(self) -> list[Listing]:
        reply = await self._service.get("/api/v3/exchangeInfo", _EXCHANGE_INFO, cost=_LISTING_WEIGHT)
        await self._server_time(reply)
        for limit in reply.value.rate_limits:
            if (limit.rate_limit_type, limit.interval, limit.interval_num) == ("REQUEST_WEIGHT", "MINUTE", 1):
                self.budget.limit = float(limit.limit)
        return [Listing(_instrument(symbol), symbol.symbol) for symbol in reply.value.symbols if usable(symbol.symbol)]

    async def _pages(self, listing: Listing, interval: Interval, span: Span) -> AsyncGenerator["pl.DataFrame"]:
        cursor = span.start or 0  # 0: the venue begins with the first candle there is
        while span.end is None or cursor < span.end:
            params = {"symbol": listing.code, "interval": self._code(interval), "limit": str(PAGE)}
            params["startTime"] = str(-(-cursor // 1_000))
            if span.end is not None:
                params["endTime"] = str((span.end - 1) // 1_000)
            reply = await self._service.get("/api/v3/klines", _KLINES, params=params, cost=_KLINES_WEIGHT)
            server_time = await self._server_time(reply)
            closed, now = last_closed(server_time, interval), epoch_microseconds(server_time)
            klines = [kline for kline in reply.value if kline.open_time * 1_000 <= closed and kline.close_time * 1_000 < now]
            yield settled(_frame(listing.instrument.symbol, klines), Span(cursor, span.end), closed)
            # Never beyond an open candle: a later page might come when it has closed, and leave a hole.
            if len(reply.value) < PAGE or len(klines) < len(reply.value):
                return
            after = max(kline.open_time for kline in klines) * 1_000 + interval.microseconds
            if after <= cursor:
                raise MalformedError(
                    f"{self._service.who} repeats the candles of {listing.code} instead of sending later ones."
                )
            cursor = after

    async def _ask_time(self) -> datetime:
        reply = await self._service.get("/api/v3/time", _TIME)
        return EPOCH + timedelta(milliseconds=reply.value.server_time)


def _instrument(symbol: _Symbol) -> Instrument:
    filters = {filter_.filter_type: filter_ for filter_ in symbol.filters}
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL")
    price, lot = filters.get("PRICE_FILTER"), filters.get("LOT_SIZE")
    return Instrument(
        venue=BinanceSource.venue,
        symbol=symbol.symbol,
        calendar=ALWAYS,
        base=symbol.base_asset,
        quote=symbol.quote_asset,
        lot=lot.step_size if lot else 0.0,
        tick=price.tick_size if price else 0.0,
        min_notional=notional.min_notional if notional else 0.0,
    )


def _frame(symbol: str, klines: list[_Kline]) -> "pl.DataFrame":
    columns = {
        name: [getattr(kline, name) for kline in klines] for name in ("open", "high", "low", "close", "volume", "quote_volume")
    }
    return candle_frame(symbol, [kline.open_time * 1_000 for kline in klines], columns)
