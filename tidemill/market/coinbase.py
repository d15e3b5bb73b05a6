"""Coinbase Exchange: public REST candles (`/products/ID/candles`) and instruments (`/products`)."""

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from tidemill.calendars import ALWAYS
from tidemill.domain.intervals import EPOCH, Interval, epoch_microseconds
from tidemill.domain.market import Instrument
from tidemill.market.pacing import TokenBucket
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

BASE_URL = "https://api.exchange.coinbase.com"
# More than this in one request is refused; both ends of the asked range count.
PAGE = 300
# The venue allows 10 a second and bursts of 15 for one address.
_RATE, _BURST = 8.0, 8.0
_DAY = Interval.parse("1d")

_Seconds = Annotated[int, msgspec.Meta(ge=0, lt=10_000_000_000)]


class _Candle(msgspec.Struct, array_like=True, frozen=True):
    time: _Seconds
    low: Price
    high: Price
    open: Price
    close: Price
    volume: Volume


class _Product(msgspec.Struct, frozen=True):
    id: str
    base_currency: str
    quote_currency: str
    base_increment: Increment
    quote_increment: Increment
    min_market_funds: Increment = 0.0


class _Time(msgspec.Struct, frozen=True):
    epoch: Annotated[float, msgspec.Meta(ge=0, lt=1e10)]


_CANDLES = msgspec.json.Decoder(list[_Candle], strict=False)
_PRODUCTS = msgspec.json.Decoder(list[_Product], strict=False)
_TIME = msgspec.json.Decoder(_Time)


class CoinbaseSource(RestSource):
    """Public candles of Coinbase Exchange. Symbols are the venue's own: BTC-USD. Spot only: nothing can be sold short."""

    venue: ClassVar[str] = "coinbase"
    title: ClassVar[str] = "Coinbase"
    intervals: ClassVar[Mapping[Interval, str]] = {
        Interval(seconds): str(seconds) for seconds in (60, 300, 900, 3_600, 21_600, 86_400)
    }

    def __init__(
        self,
        *,
        base_url: str = BASE_URL,
        options: ServiceOptions | None = None,
        clock: Clock | None = None,
        concurrency: int = 8,
    ) -> None:
        pace = TokenBucket(_RATE, _BURST, clock)
        super().__init__(base_url, pace=pace, options=options, clock=clock, concurrency=concurrency)

    async def _listings(self) -> list[Listing]:
        reply = await self._service.get("/products", _PRODUCTS)
        await self._server_time(reply)
        return [Listing(_instrument(product), product.id) for product in reply.value if usable(product.id)]

    async def _pages(self, listing: Listing, interval: Interval, span: Span) -> AsyncGenerator["pl.DataFrame"]:
        start = await self._first_day(listing) if span.start is None else span.start
        step = interval.microseconds
        cursor = -(-start // step) * step
        while cursor < (epoch_microseconds(self._venue_now()) if span.end is None else span.end):
            after = cursor + PAGE * step if span.end is None else min(cursor + PAGE * step, span.end)
            frame, server_time = await self._candles(listing, interval, cursor, after)
            closed = last_closed(server_time, interval)
            yield settled(frame, Span(cursor, after), closed)
            # Never beyond an open candle: a later page might come when it has closed, and leave a hole.
            if after > closed + step:
                return
            cursor = after

    async def _first_day(self, listing: Listing) -> int:
        """Open time of the first day with a candle: daily pages backwards until one is empty (the venue does not say)."""
        step = _DAY.microseconds
        first = after = (epoch_microseconds(self._venue_now()) // step + 1) * step
        while after > 0:
            frame, _ = await self._candles(listing, _DAY, after - PAGE * step, after)
            if frame.is_empty():
                break
            earliest = frame["open_time"].to_physical().min()
            first = earliest if isinstance(earliest, int) else first
            after -= PAGE * step
        return first

    async def _candles(self, listing: Listing, interval: Interval, start: int, end: int) -> tuple["pl.DataFrame", datetime]:
        """One page of candles with start ≤ time < end (microseconds), as the venue orders them, and the venue's time."""
        # The venue counts both ends: the last candle wanted opens before `end`.
        last = (end - 1) // interval.microseconds * interval.microseconds
        params = {"granularity": self._code(interval), "start": _text(start), "end": _text(last)}
        reply = await self._service.get(f"/products/{listing.code}/candles", _CANDLES, params=params)
        return _frame(listing.instrument.symbol, reply.value), await self._server_time(reply)

    async def _ask_time(self) -> datetime:
        reply = await self._service.get("/time", _TIME)
        return EPOCH + timedelta(seconds=reply.value.epoch)


def _text(microseconds: int) -> str:
    return (EPOCH + timedelta(microseconds=microseconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _instrument(product: _Product) -> Instrument:
    return Instrument(
        venue=CoinbaseSource.venue,
        symbol=product.id,
        calendar=ALWAYS,
        base=product.base_currency,
        quote=product.quote_currency,
        lot=product.base_increment,
        tick=product.quote_increment,
        min_notional=product.min_market_funds,
    )


def _frame(symbol: str, candles: list[_Candle]) -> "pl.DataFrame":
    columns = {name: [getattr(candle, name) for candle in candles] for name in ("open", "high", "low", "close", "volume")}
    return candle_frame(symbol, [candle.time * 1_000_000 for candle in candles], columns)
