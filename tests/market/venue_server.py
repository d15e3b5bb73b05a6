"""The public REST candles of Binance, Coinbase Exchange and Kraken over given bars, on a loopback port.

The listings are recorded answers of the venues; the candles are recorded Binance bars in each venue's own format. Limits are
those of the real venues: Binance counts weight by the minute and answers 429 beyond it.
"""

import gzip
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from tests.http_server import Answer, Fault, LoopbackServer, Request, VirtualClock, changed
from tidemill.domain.intervals import Interval

# Which recorded pair a venue's own name stands for.
COINBASE_PAIRS = {"BTC-USD": "BTCUSDT", "ETH-USD": "ETHUSDT", "LTC-USD": "LTCUSDT"}
KRAKEN_PAIRS = {"XBTUSD": "BTCUSDT", "ETHUSD": "ETHUSDT", "LTCUSD": "LTCUSDT"}
KRAKEN_NAMES = {"XBTUSD": "XXBTZUSD", "ETHUSD": "XETHZUSD", "LTCUSD": "XLTCZUSD"}
HOUR = Interval.parse("1h")


@cache
def recorded_bars(shared: Path, symbols: tuple[str, ...]) -> pl.DataFrame:
    """Hourly bars of Binance in 2024, with a quote volume made up as close · volume, times in microseconds."""
    bars = pl.read_parquet(shared / "binance_spot_2024_1h" / "binance_spot_1h.parquet").filter(pl.col("symbol").is_in(symbols))
    return bars.with_columns(
        pl.col("open_time").cast(pl.Datetime("us", "UTC")), quote_volume=pl.col("close") * pl.col("volume")
    ).sort("symbol", "open_time")


@cache
def recorded_listing(shared: Path, venue: str) -> bytes:
    """The recorded answer of exchangeInfo, products or AssetPairs."""
    with gzip.open(shared / "wire_cryptofeed_recordings" / f"{venue.upper()}.0.gz", "rt") as lines:
        return next(lines).split(": ", 1)[1].encode()


class VenueServer(LoopbackServer):
    """All three protocols at one address. `now` is the venues' time; candles after it do not exist, the one at it is open."""

    def __init__(self, shared: Path, bars: pl.DataFrame, now: datetime, *, interval: Interval = HOUR) -> None:
        self.virtual = VirtualClock(now)
        super().__init__(clock=self.virtual)
        self._shared, self._interval = shared, interval
        self._bars = {str(symbol): frame for (symbol,), frame in bars.partition_by("symbol", as_dict=True).items()}
        self.weight_limit = 6_000
        self.weight_refusals = 0
        self._weights: dict[int, int] = {}
        self._routes: Mapping[str, Callable[[Request], Answer]] = {
            "/api/v3/exchangeInfo": lambda _: self._exchange_info(),
            "/api/v3/klines": self._klines,
            "/api/v3/time": lambda _: _json({"serverTime": int(self.clock.now().timestamp() * 1_000)}),
            "/products": lambda _: Answer(recorded_listing(self._shared, "coinbase")),
            "/time": lambda _: _json({"iso": "", "epoch": self.clock.now().timestamp()}),
            "/0/public/AssetPairs": lambda _: Answer(recorded_listing(self._shared, "kraken")),
            "/0/public/OHLC": self._ohlc,
            "/0/public/Time": lambda _: _kraken({"unixtime": int(self.clock.now().timestamp()), "rfc1123": ""}),
        }

    def respond(self, request: Request) -> Answer:
        if request.path.startswith("/api/v3/"):
            return self._weighed(request)
        route = self._coinbase_candles if request.path.endswith("/candles") else self._routes.get(request.path)
        return Answer(b"{}", 404) if route is None else route(request)

    def _weighed(self, request: Request) -> Answer:
        minute, second = divmod(int(self.clock.now().timestamp()), 60)
        cost = {"/api/v3/klines": 2, "/api/v3/exchangeInfo": 20}.get(request.path, 1)
        used = self._weights[minute] = self._weights.get(minute, 0) + cost
        headers = {"x-mbx-used-weight": str(used), "X-MBX-USED-WEIGHT-1M": str(used)}
        if used > self.weight_limit:
            self.weight_refusals += 1
            return Answer(
                b'{"code":-1003,"msg":"Too much request weight used."}', 429, {**headers, "retry-after": str(60 - second)}
            )
        answer = self._routes[request.path](request)
        return Answer(answer.body, answer.status, headers)

    def used_elsewhere(self, weight: int) -> None:
        """Another program behind the same address uses some of the weight of this minute."""
        minute = int(self.clock.now().timestamp()) // 60
        self._weights[minute] = self._weights.get(minute, 0) + weight

    def _exchange_info(self) -> Answer:
        recorded = recorded_listing(self._shared, "binance")
        return Answer(recorded.replace(b'"limit":1200}', b'"limit":%d}' % self.weight_limit, 1))

    def _rows(self, symbol: str, start: datetime | None, end: datetime | None) -> list[dict[str, Any]]:
        """Bars with start ≤ open_time ≤ end that have begun, oldest first."""
        chosen = self._bars[symbol].filter(pl.col("open_time") <= self.clock.now())
        if start is not None:
            chosen = chosen.filter(pl.col("open_time") >= start)
        if end is not None:
            chosen = chosen.filter(pl.col("open_time") <= end)
        return chosen.to_dicts()

    def _klines(self, request: Request) -> Answer:
        asked = request.params
        if asked["symbol"] not in self._bars:
            return Answer(b'{"code":-1121,"msg":"Invalid symbol."}', 400)
        assert asked["interval"] == str(self._interval)
        start = datetime.fromtimestamp(int(asked["startTime"]) / 1_000, UTC)
        end = datetime.fromtimestamp(int(asked["endTime"]) / 1_000, UTC) if "endTime" in asked else None
        rows = self._rows(asked["symbol"], start, end)[: min(int(asked.get("limit", "500")), 1_000)]
        return _json([self._kline(row) for row in rows])

    def _kline(self, row: dict[str, Any]) -> list[Any]:
        opened = int(row["open_time"].timestamp() * 1_000)
        prices = [repr(row[name]) for name in ("open", "high", "low", "close", "volume")]
        return [opened, *prices, opened + self._interval.seconds * 1_000 - 1, repr(row["quote_volume"]), 9, "1.0", "1.0", "0"]

    def _coinbase_candles(self, request: Request) -> Answer:
        asked = request.params
        start, end = (datetime.fromisoformat(asked[name]) for name in ("start", "end"))
        step = int(asked["granularity"])
        if (end - start) / timedelta(seconds=step) >= 300:
            return Answer(b'{"message":"granularity too small for the requested time range."}', 400)
        rows = self._rows(COINBASE_PAIRS[request.path.split("/")[2]], start, end)
        if step == 86_400 != self._interval.seconds:
            rows = [row for row in rows if row["open_time"].hour == 0]  # enough for finding the first day
        names = ("low", "high", "open", "close", "volume")
        return _json([[int(row["open_time"].timestamp()), *(row[name] for name in names)] for row in reversed(rows)])

    def _ohlc(self, request: Request) -> Answer:
        pair = request.params["pair"]
        if pair not in KRAKEN_PAIRS:
            return _json({"error": ["EQuery:Unknown asset pair"]})
        assert int(request.params["interval"]) * 60 == self._interval.seconds
        rows = self._rows(KRAKEN_PAIRS[pair], None, None)[-721:]
        since = int(request.params.get("since", "0"))
        names = ("open", "high", "low", "close", "volume")
        candles = []
        for row in rows:
            opened, (*prices, volume) = int(row["open_time"].timestamp()), (repr(row[name]) for name in names)
            if opened > since:
                candles.append([opened, *prices, "0.0", volume, 7])
        last = int((self._interval.floor(self.clock.now()) - self._interval.delta).timestamp())
        return _kraken({KRAKEN_NAMES[pair]: candles, "last": last})


def _json(value: object) -> Answer:
    return Answer(json.dumps(value).encode())


def _kraken(result: object) -> Answer:
    return _json({"error": [], "result": result})


def candles(change: Callable[[list[list[Any]]], list[list[Any]]]) -> Fault:
    """The list of candles in an answer of any of the venues, changed."""

    def apply(value: Any) -> Any:
        if isinstance(value, dict):
            result = {name: part if name == "last" else change(part) for name, part in value["result"].items()}
            return {**value, "result": result}
        return change(value)

    return changed(apply)
