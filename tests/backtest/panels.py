"""Small markets for the tests of the kernel: bars frames from plain numbers, and random panels with every kind of hole."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument

DAY = Interval.parse("1d")
START = datetime(2024, 1, 1, tzinfo=UTC)
FREE = CostSpec(fee_bps=0.0, slippage_bps=0.0, capital=1_000.0)
TIME = pl.Datetime("us", "UTC")


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def instrument(symbol: str, **given: Any) -> Instrument:
    return Instrument(venue="test", symbol=symbol, calendar=given.pop("calendar", XNYS), **given)


def bars(prices: Mapping[str, Sequence[tuple[int, float, float, float]]]) -> pl.DataFrame:
    """Symbol → rows of (day, open, close, volume)."""
    rows = [(symbol, day(at), *numbers) for symbol, own in prices.items() for at, *numbers in own]
    columns = {"symbol": pl.String, "open_time": TIME, "open": pl.Float64, "close": pl.Float64, "volume": pl.Float64}
    return pl.DataFrame(rows, schema=columns, orient="row").sort("symbol", "open_time")


def one(symbol: str, opens: Sequence[float], closes: Sequence[float] | None = None, volume: float = 1e9) -> pl.DataFrame:
    """One symbol with a bar on every day; closes default to the opens."""
    shut = opens if closes is None else closes
    return bars({symbol: [(at, float(price), float(shut[at]), volume) for at, price in enumerate(opens)]})


def weights(rows: Sequence[tuple[str, int, float | None]]) -> pl.DataFrame:
    """Rows of (symbol, day, weight)."""
    return pl.DataFrame(
        [(symbol, day(at), weight) for symbol, at, weight in rows],
        schema={"symbol": pl.String, "open_time": TIME, "weight": pl.Float64},
        orient="row",
    )


def actions(rows: Sequence[tuple[str, str, int, float]]) -> pl.DataFrame:
    """Rows of (symbol, kind, day of the ex time, value)."""
    columns = {"symbol": pl.String, "kind": pl.String, "ex_time": TIME, "value": pl.Float64}
    return pl.DataFrame([(symbol, kind, day(at), value) for symbol, kind, at, value in rows], schema=columns, orient="row")


class Market:
    """A random panel: late listings, deaths, holes, bars without volume, splits, dividends; targets with holes.

    sessions: symbol → the days on which it trades; every day where it is not named. Targets stand on all days.
    """

    def __init__(
        self, seed: int, slots: int = 40, symbols: int = 4, sessions: Mapping[str, Collection[int]] | None = None
    ) -> None:
        random = np.random.default_rng(seed)
        self.symbols = [f"S{number}" for number in range(symbols)]
        rows, asked, corporate = [], [], []
        for symbol in self.symbols:
            listed = int(random.integers(0, slots // 3)) if random.random() < 0.4 else 0
            died = int(random.integers(slots // 2, slots)) if random.random() < 0.4 else slots
            price = float(np.exp(random.normal(3.0, 1.0)))
            for at in range(slots):
                if listed <= at < died and at in (sessions or {}).get(symbol, range(slots)):
                    if at > listed and random.random() < 0.04:
                        ratio = float(random.choice([2.0, 3.0, 0.5, 1.5]))
                        corporate.append((symbol, "split", at, ratio))
                        price /= ratio
                    if at > listed and random.random() < 0.05:
                        corporate.append((symbol, "dividend", at, price * 0.02))
                    opened = price * float(np.exp(random.normal(0.0, 0.02)))
                    price = opened * float(np.exp(random.normal(0.0, 0.03)))
                    volume = 0.0 if random.random() < 0.05 else float(np.exp(random.normal(4.0, 1.5)))
                    if random.random() > 0.06:
                        rows.append((symbol, day(at), opened, price, volume))
                if random.random() < 0.5:
                    asked.append((symbol, at, float(random.choice([0.0, 0.2, 0.6, -0.3, 1.0]))))
        columns = {"symbol": pl.String, "open_time": TIME, "open": pl.Float64, "close": pl.Float64, "volume": pl.Float64}
        self.bars = pl.DataFrame(rows, schema=columns, orient="row").sort("symbol", "open_time")
        present = set(self.bars.get_column("symbol"))
        self.weights = weights([row for row in asked if row[0] in present])
        self.actions = actions([row for row in corporate if row[0] in present])
        self.instruments = {
            symbol: instrument(
                symbol,
                calendar=XNYS if sessions is None or symbol in sessions else ALWAYS,
                can_short=bool(random.random() < 0.6),
                borrow_bps=float(random.choice([0.0, 300.0])),
                lot=float(random.choice([0.0, 1.0, 0.1])),
                tick=float(random.choice([0.0, 0.01])),
                min_notional=float(random.choice([0.0, 5.0])),
            )
            for symbol in self.symbols
        }
        self.costs = CostSpec(fee_bps=12.0, slippage_bps=7.0, capital=10_000.0)
