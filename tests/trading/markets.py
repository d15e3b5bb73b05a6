"""A made-up market slot by slot, and links over it that were fitted on made-up features."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from tidemill.backtest.backtest import Options, terms_of
from tidemill.calendars import NEVER
from tidemill.domain.experiment import CostSpec, NeutraliseSpec, PredictionGuard
from tidemill.domain.intervals import EPOCH, Interval, epoch_microseconds
from tidemill.domain.market import Instrument
from tidemill.features.api import feature_set
from tidemill.market.adjusting import ToldAction
from tidemill.models.artifact import Artifact
from tidemill.models.registry import SHIPPED_ENGINES, engine
from tidemill.quality.validity import PastRange, feature_bounds
from tidemill.risk.drawdown import DrawdownPolicy
from tidemill.risk.limits import Limits
from tidemill.strategies.base import Universe
from tidemill.strategies.registry import strategy
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.chain import Deciding, Links
from tidemill.trading.ordering import Desk

DAY = Interval.parse("1d")
SYMBOLS = ("A", "B", "C", "D", "E")
NAMES = ("ROC5", "STD10", "rsi_14", "ema_20", "roc_10", "natr_14", "VWAP0")
SLOTS = 160
UNIVERSE = Universe(SYMBOLS, np.array([name != "A" for name in SYMBOLS]))


def training() -> pl.DataFrame:
    chance = np.random.default_rng(3)
    times = pl.Series([EPOCH + timedelta(days=at) for at in range(80)]).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"symbol": np.repeat(SYMBOLS, 80), "open_time": pl.concat([times] * 5)})
    columns = [pl.Series(name, chance.normal(size=400)) for name in (*NAMES, "label")]
    return frame.with_columns(*columns, label_end_at=pl.col("open_time") + timedelta(days=6))


def deciding(engines: Mapping[str, str], params: Mapping[str, Any], *, mixed: bool = False) -> Deciding:
    """engines: name → engine of that name. params: of each engine. mixed: an ensemble weighs them."""
    rows = training()
    made = {name: engine(kind).fit(rows, features=NAMES, params=params, seed=1) for name, kind in engines.items()}
    ensemble: Artifact | None = None
    if mixed:
        ensemble = engine("ensemble").fit(rows.head(0), features=tuple(made), params={}, seed=0)
    past = PastRange(-0.3, 0.3, 5_000)
    return Deciding(made, ensemble, feature_bounds(rows, NAMES), dict.fromkeys(made, past))


def links(
    book: str | None,
    name: str = "quantile",
    params: Mapping[str, Any] | None = None,
    neutral: NeutraliseSpec | None = None,
    *,
    fused: bool = True,
) -> Links:
    """Of a book that trades by the strategy `name`."""
    chosen, rules = strategy(name), PredictionGuard(distance=30.0, range=0.8, disagreement=0.9)
    return Links(
        DAY, feature_set(*NAMES), 20.0, rules, chosen, chosen.parse(params or {}), neutral, book, SHIPPED_ENGINES, fused
    )  # fmt: skip


def desk() -> Desk:
    """Under limits, a drawdown policy and a collar; A cannot be short."""
    instruments = {name: Instrument(venue="none", symbol=name, calendar="24/7", can_short=name != "A") for name in SYMBOLS}
    options = Options(Limits(0.5, 1.0, 0.8), DrawdownPolicy(0.1, 0.2, 0.3), collar=0.05)
    return Desk(terms_of(SYMBOLS, instruments, CostSpec(), options), 1e6, np.full(5, NEVER))


def market(seed: int) -> list[BarsOfSlot]:
    """Late listings, halts, missing volumes, a split and a dividend."""
    chance = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(0.02 * chance.normal(size=(SLOTS, 5)), axis=0))
    spread = 1.0 + 0.01 * np.abs(chance.normal(size=(2, SLOTS, 5)))
    opened = close * np.exp(0.005 * chance.normal(size=close.shape))
    high, low = np.maximum(opened, close) * spread[0], np.minimum(opened, close) / spread[1]
    volume = np.exp(chance.normal(12.0, 1.0, close.shape))
    rows = np.stack([opened, high, low, close, volume, volume * (high + low + close) / 3.0])
    there = chance.random(close.shape) > 0.05
    there[:40, 4] = False
    rows[:, ~there] = np.nan
    rows[5, chance.random(close.shape) < 0.3] = np.nan
    made = []
    for at in range(SLOTS):
        time = EPOCH + timedelta(days=100 + at)
        told = []
        if at in (60, 90):
            kind, value = ("split", 2.0) if at == 60 else ("dividend", 1.5)
            told = [ToldAction("B", kind, epoch_microseconds(time + timedelta(days=2)), value, epoch_microseconds(time))]
        made.append(BarsOfSlot(time, at - 30, np.ascontiguousarray(rows[:, at]), there[at], there[at], told))
    return made
