"""Kraken spot: public REST candles (`/0/public/OHLC`) and instruments (`/0/public/AssetPairs`).

The venue serves its latest 720 candles of each length and nothing older.
"""

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from tidemill.calendars import ALWAYS
from tidemill.domain.errors import (
    InputError,
    MalformedError,
    RateLimitedError,
    RefusedError,
    TidemillError,
    UnavailableError,
)
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

BASE_URL = "https://api.kraken.com"
DEPTH = 720
# The venue asks for about one public call a second from one address.
_RATE, _BURST = 1.0, 3.0
# Its names for what everybody else calls otherwise.
_CURRENCIES = {"XBT": "BTC", "XDG": "DOGE"}

_Seconds = Annotated[int, msgspec.Meta(ge=0, lt=10_000_000_000)]


class _Candle(msgspec.Struct, array_like=True, frozen=True):
    time: _Seconds
    open: Price
    high: Price
    low: Price
    close: Price
    vwap: Volume  # 0 where nothing was traded
    volume: Volume


class _Pair(msgspec.Struct, frozen=True):
    altname: str
    pair_decimals: Annotated[int, msgspec.Meta(ge=0, le=18)]
    lot_decimals: Annotated[int, msgspec.Meta(ge=0, le=18)]
    wsname: str = ""  # base/quote; absent for dark pools
    aclass_base: str = "currency"
    tick_size: Increment = 0.0
    costmin: Increment = 0.0


class _Clock(msgspec.Struct, frozen=True):
    unixtime: _Seconds


class _Answer(msgspec.Struct, frozen=True):
    """Every answer of the venue: a list of errors (empty when there is none) with status 200, and the result."""

    error: list[str]


class _Pairs(_Answer, frozen=True):
    result: dict[str, _Pair] = {}


class _Candles(_Answer, frozen=True):
    """`result` holds the candles under the pair's name, and `last`: the open time of the last one that is final."""

    result: dict[str, list[_Candle] | _Seconds] = {}


class _Time(_Answer, frozen=True):
    result: _Clock | None = None


_PAIRS = msgspec.json.Decoder(_Pairs, strict=False)
_CANDLES = msgspec.json.Decoder(_Candles, strict=False)
_TIME = msgspec.json.Decoder(_Time)


class KrakenSource(RestSource):
    """Public candles of Kraken spot. Symbols are BTC-USD; the venue's own XBTUSD, XXBTZUSD and XBT/USD mean the same.

    Nothing can be sold short. Weeks are left out: the venue's do not begin on a Monday; resample days instead.
    """

    venue: ClassVar[str] = "kraken"
    title: ClassVar[str] = "Kraken"
    intervals: ClassVar[Mapping[Interval, str]] = {
        Interval(minutes * 60): str(minutes) for minutes in (1, 5, 15, 30, 60, 240, 1_440)
    }

    def __init__(
        self,
        *,
        base_url: str = BASE_URL,
        options: ServiceOptions | None = None,
        clock: Clock | None = None,
        concurrency: int = 4,
    ) -> None:
        self._own_names: dict[str, str] = {}
        pace = TokenBucket(_RATE, _BURST, clock)
        super().__init__(base_url, pace=pace, options=options, clock=clock, concurrency=concurrency)

    def _canonical(self, symbol: str) -> str:
        return self._own_names.get(symbol, symbol)

    async def _listings(self) -> list[Listing]:
        reply = await self._service.get("/0/public/AssetPairs", _PAIRS, check=self._refuse)
        await self._server_time(reply)
        listings = []
        for name, pair in reply.value.result.items():
            symbol = _symbol(pair.wsname)
            if symbol and usable(symbol) and pair.aclass_base == "currency":
                listings.append(Listing(_instrument(symbol, pair), pair.altname))
                self._own_names |= dict.fromkeys((name, pair.altname, pair.wsname), symbol)
        return listings

    async def _pages(self, listing: Listing, interval: Interval, span: Span) -> AsyncGenerator["pl.DataFrame"]:
        params = {"pair": listing.code, "interval": self._code(interval)}
        if span.start is not None:
            # The venue leaves out the candle that opens at `since`, so name the one before.
            params["since"] = str(max(0, span.start - interval.microseconds) // 1_000_000)
        reply = await self._service.get("/0/public/OHLC", _CANDLES, params=params, check=self._refuse)
        server_time = await self._server_time(reply)
        self._refuse_too_old(interval, span, server_time)
        candles, final = _parts(reply.value.result, self._service.who)
        closed = min(last_closed(server_time, interval), final)
        yield settled(_frame(listing.instrument.symbol, candles), span, closed)

    async def _ask_time(self) -> datetime:
        reply = await self._service.get("/0/public/Time", _TIME, check=self._refuse)
        if reply.value.result is None:
            raise MalformedError(f"{self._service.who} did not send its time.")
        return EPOCH + timedelta(seconds=reply.value.result.unixtime)

    def _refuse_too_old(self, interval: Interval, span: Span, server_time: datetime) -> None:
        """InputError when the span begins before what the venue serves: to leave the beginning out silently would mislead."""
        oldest = interval.floor(server_time) - DEPTH * interval.delta
        if span.start is not None and span.start < epoch_microseconds(oldest):
            raise InputError(
                f"Kraken serves only its latest {DEPTH} bars of {interval}, now from {oldest:%Y-%m-%dT%H:%MZ}. "
                "Ask for a later start or a longer interval."
            )

    def _refuse(self, answer: _Answer) -> None:
        """The error that an answer of status 200 carries, raised."""
        if answer.error:
            raise _venue_error(answer.error[0], self._service.who)


def _venue_error(text: str, who: str) -> TidemillError:
    shown = text[:200]
    if "Rate limit" in text or "Too many requests" in text:
        return RateLimitedError(f"{who} asks to wait ({shown}). Ask for fewer symbols at once or try again later.")
    if text.startswith(("EService", "EGeneral:Internal", "EGeneral:Temporary")):
        return UnavailableError(f"{who} is not available ({shown}). Try again later.")
    return RefusedError(f"{who} refuses the request: {shown}.", 200, shown)


def _symbol(wsname: str) -> str:
    """XBT/USD → BTC-USD; empty for a pair without such a name."""
    base, slash, quote = wsname.partition("/")
    if not slash:
        return ""
    return f"{_CURRENCIES.get(base, base)}-{_CURRENCIES.get(quote, quote)}"


def _instrument(symbol: str, pair: _Pair) -> Instrument:
    base, _, quote = symbol.partition("-")
    return Instrument(
        venue=KrakenSource.venue,
        symbol=symbol,
        calendar=ALWAYS,
        base=base,
        quote=quote,
        lot=round(10.0**-pair.lot_decimals, pair.lot_decimals),
        tick=pair.tick_size or round(10.0**-pair.pair_decimals, pair.pair_decimals),
        min_notional=pair.costmin,
    )


def _parts(result: dict[str, list[_Candle] | int], who: str) -> tuple[list[_Candle], int]:
    """The candles and the open time (microseconds) of the last final one."""
    final = result.get("last")
    lists = [part for name, part in result.items() if name != "last" and isinstance(part, list)]
    if not isinstance(final, int) or len(lists) != 1:
        raise MalformedError(f"{who} sent candles of {len(lists)} pairs instead of one, or did not say which are final.")
    return lists[0], final * 1_000_000


def _frame(symbol: str, candles: list[_Candle]) -> "pl.DataFrame":
    columns = {name: [getattr(candle, name) for candle in candles] for name in ("open", "high", "low", "close", "volume")}
    return candle_frame(symbol, [candle.time * 1_000_000 for candle in candles], columns)
