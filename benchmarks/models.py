"""Where the time of a walk-forward goes: every engine trained and scored on every fold, on made-up panels of real sizes.

    python benchmarks/models.py [sample] [sp500] [binance] [--engines ridge,lightgbm]

The features are noise with one planted signal of information coefficient 0.05, so the printed coefficient tells whether the
engines still learn. Wall time suffers from whatever else the machine does; processor time does less.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.models.base import Engine
from tidemill.models.registry import engine
from tidemill.validation.splits import Fold, describe, scoring_rows, suggest_splits, training_rows, walk_forward

PANELS = {"sample": (5, 3_270, "1d"), "sp500": (505, 1_259, "1d"), "binance": (136, 6_000, "1h")}
FEATURES = ("ROC5", "ROC60", "STD20", *(f"feature_{number}" for number in range(67)))
HORIZON, LOOKBACK, SKILL = 5, 60, 0.05
ENGINES = ("momentum", "ridge", "lightgbm", "transformer")


@dataclass
class Spent:
    """Seconds by what they were spent on: (wall, processor)."""

    parts: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        before = self.parts.get(part, (0.0, 0.0))
        self.parts[part] = (before[0] + time.perf_counter() - wall, before[1] + time.process_time() - processor)


def panel(symbols: int, bars: int, interval: Interval, seed: int = 1) -> pl.DataFrame:
    """Features and labels of a made-up market: the label is what comes after the bar, and `feature_0` knows a little of it."""
    chance = np.random.default_rng(seed)
    rows = symbols * bars
    values = chance.standard_normal((len(FEATURES), rows), dtype=np.float32)
    label = 0.02 * (SKILL * values[3] + np.sqrt(1.0 - SKILL**2) * chance.standard_normal(rows))
    values[:3] = np.exp(0.05 * values[:3])
    start = datetime(2015, 1, 1, tzinfo=UTC)
    times = pl.Series([start + number * interval.delta for number in range(bars)], dtype=pl.Datetime("us", "UTC"))
    frame = pl.DataFrame(
        {
            "symbol": np.repeat([f"S{number:03d}" for number in range(symbols)], bars),
            "open_time": pl.concat([times] * symbols),
            **{name: column.astype(np.float64) for name, column in zip(FEATURES, values, strict=True)},
            "label": label,
        }
    )
    end = pl.col("open_time") + timedelta(seconds=interval.seconds * (HORIZON + 1))
    return frame.with_columns(end.alias("label_end_at"))


def scored(one: Engine, frame: pl.DataFrame, folds: list[Fold], spent: Spent) -> pl.DataFrame:
    made = []
    for fold in folds:
        with spent.on("split"):
            training, scoring = training_rows(frame, fold), scoring_rows(frame, fold, history=one.info.history)
        with spent.on(f"{one.info.name} fit"):
            artifact = one.fit(training, features=FEATURES, params={}, seed=7)
        with spent.on(f"{one.info.name} predict"):
            made.append(one.predict(artifact, scoring, start=fold.test_start))
    return pl.concat(made)


def information_coefficient(predictions: pl.DataFrame, frame: pl.DataFrame) -> float:
    joined = predictions.join(frame.select("symbol", "open_time", "label"), on=("symbol", "open_time"))
    by_time = joined.group_by("open_time").agg(pl.corr("prediction", "label").alias("value"))
    return float(by_time["value"].fill_nan(None).mean() or 0.0)


def measure(name: str, engines: tuple[str, ...]) -> None:
    symbols, bars, interval = PANELS[name]
    frame = panel(symbols, bars, Interval.parse(interval))
    folds = walk_forward(frame["open_time"], suggest_splits(bars, embargo=LOOKBACK), horizon=HORIZON, lookback=LOOKBACK)
    print(f"{name}: {symbols} symbols × {bars} bars × {len(FEATURES)} features; {describe(folds, LOOKBACK)}")
    spent, began = Spent(), time.perf_counter()
    for engine_name in engines:
        coefficient = information_coefficient(scored(engine(engine_name), frame, folds, spent), frame)
        print(f"  {engine_name:12} information coefficient {coefficient:+.4f}")
    for part, (wall, processor) in spent.parts.items():
        print(f"  {part:22} {wall:7.2f} s, processor {processor:7.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  whole                  {time.perf_counter() - began:7.2f} s, peak memory {peak:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a walk-forward of every engine")
    parser.add_argument("panels", nargs="*", default=["sample"], choices=PANELS)
    parser.add_argument("--engines", default=",".join(ENGINES))
    arguments = parser.parse_args()
    for name in arguments.panels:
        measure(name, tuple(arguments.engines.split(",")))


if __name__ == "__main__":
    main()
