"""Small panels of daily bars for tests of the whole graph, and an experiment that is quick on them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from tidemill.calendars import XNYS, calendar_named
from tidemill.domain.experiment import DatasetSpec, EngineSpec, Experiment, FeatureSpec, LabelSpec, SplitSpec
from tidemill.domain.intervals import Interval

START = datetime(2021, 1, 4, tzinfo=UTC)
SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")
SECTORS = {"AAA": "x", "BBB": "x", "CCC": "y", "DDD": "y", "EEE": "x", "FFF": "y"}


def daily_bars(days: int = 330, symbols: tuple[str, ...] = SYMBOLS, seed: int = 5) -> pl.DataFrame:
    """symbol, date, open, high, low, close, volume: a random walk for each symbol, every day of the week."""
    frames = []
    for number, symbol in enumerate(symbols):
        random = np.random.default_rng((seed, number))
        close = 50.0 * np.exp(np.cumsum(random.normal(0.0003, 0.02, days)))
        opened = close * np.exp(random.normal(0.0, 0.004, days))
        top = np.maximum(opened, close) * (1.0 + np.abs(random.normal(0.0, 0.004, days)))
        low = np.minimum(opened, close) * (1.0 - np.abs(random.normal(0.0, 0.004, days)))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * days,
                    "date": [(START + timedelta(days=day)).date() for day in range(days)],
                    "open": opened.round(4),
                    "high": top.round(4) + 0.0001,
                    "low": low.round(4) - 0.0001,
                    "close": close.round(4),
                    "volume": random.integers(100_000, 900_000, days).astype(np.float64),
                }
            )
        )
    return pl.concat(frames)


def stocks() -> pl.DataFrame:
    """Stocks with late listings, halts, a death, a split and dividends."""
    sessions = calendar_named(XNYS).slots(Interval.parse("1d"), START, START + timedelta(days=400)).cast(pl.Date)
    bars = daily_bars(400).filter(pl.col("date").is_in(sessions.implode()))
    days = (pl.col("date") - START.date()).dt.total_days()
    lost = (
        ((pl.col("symbol") == "BBB") & days.is_between(140, 150))
        | ((pl.col("symbol") == "CCC") & (days < 170))
        | ((pl.col("symbol") == "DDD") & (days > 260))
        | ((pl.col("symbol") == "EEE") & days.is_in([101, 200, 201]))
    )
    split = (pl.col("symbol") == "AAA") & (days >= 180)
    prices = [pl.when(split).then(pl.col(name) / 2.0).otherwise(name).alias(name) for name in ("open", "high", "low", "close")]
    paid = pl.when((pl.col("symbol") == "FFF") & (days < 210)).then(0.98).otherwise(1.0)
    adjusted = (pl.col("close") * pl.when((pl.col("symbol") == "AAA") & ~split).then(0.5).otherwise(1.0) * paid).alias(
        "adjusted_close"
    )
    return bars.filter(~lost).with_columns(prices).with_columns(adjusted)


def coins_and_stocks(days: int = 330) -> pl.DataFrame:
    """Two coins that trade every day, and four stocks on the sessions of New York, two of which halt and one is listed late."""
    bars = daily_bars(days, ("AAA", "BBB", "KO", "PEP", "TGT", "XOM"))
    sessions = calendar_named(XNYS).slots(Interval.parse("1d"), START, START + timedelta(days=days)).cast(pl.Date)
    day, symbol = (pl.col("date") - START.date()).dt.total_days(), pl.col("symbol")
    halted = (symbol.is_in(["KO", "PEP"]) & day.is_between(151, 158)) | ((symbol == "AAA") & day.is_in([130, 131, 245]))
    return bars.filter(symbol.is_in(["AAA", "BBB"]) | pl.col("date").is_in(sessions.implode())).filter(
        ~halted & ((symbol != "XOM") | (day > 140))
    )


def day_of(bars: pl.DataFrame, day: int) -> pl.DataFrame:
    """The bars of one day, counted from 0."""
    return bars.filter(pl.col("date") == (START + timedelta(days=day)).date())


def before_day(bars: pl.DataFrame, day: int) -> pl.DataFrame:
    return bars.filter(pl.col("date") < (START + timedelta(days=day)).date())


def small_experiment(folder: Path, **changes: object) -> Experiment:
    """Two quick engines, few features, seven folds of 30 days."""
    values: dict[str, object] = {
        "name": "small",
        "dataset": DatasetSpec(source=f"file:{folder}"),
        "features": FeatureSpec(sets=(), names=("ROC5", "STD10", "rsi_14", "ema_20", "roc_10", "natr_14")),
        "label": LabelSpec(horizon=3),
        "engines": (EngineSpec(name="momentum"), EngineSpec(name="ridge")),
        "splits": SplitSpec(train=100, test=30),
        **changes,
    }
    return Experiment(**values)  # type: ignore[arg-type]  # any field
