"""How long engines take: inference, bar by bar and in batches, and a walk-forward of every engine on panels of real sizes.

    python -m benchmarks.models [inference] [sample] [sp500] [binance] [--engines ridge,lightgbm]

Inference prints medians beside what was promised, and LightGBM's own `predict` beside the stream. In a walk-forward the
features are noise with one planted signal of information coefficient 0.05, so the printed coefficient tells whether the engines
still learn. Wall time suffers from whatever else the machine does; processor time does less.
"""

import argparse
import itertools
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from tidemill.domain.intervals import EPOCH, Interval
from tidemill.models.artifact import Artifact
from tidemill.models.base import Engine
from tidemill.models.inference import predict_batch, stream
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
    mean = by_time["value"].fill_nan(None).mean()
    return mean if isinstance(mean, float) else 0.0


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


@dataclass(frozen=True)
class Promise:
    """A call, and how long it may take, in milliseconds; None where nothing was promised."""

    name: str
    call: Callable[[], object]
    limit: float | None = None


def median(call: Callable[[], object], seconds: float = 1.5) -> tuple[float, float]:
    """(median, shortest) milliseconds of repeated calls, after a few that do not count."""
    for _ in range(3):
        call()
    taken: list[float] = []
    while sum(taken) < seconds and len(taken) < 3_000:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken)) * 1e3, min(taken) * 1e3


def streamed(artifact: Artifact, symbols: int, values: np.ndarray, bars: int) -> Callable[[], object]:
    """A step of a stream of `symbols` that has seen `bars` bars; each call takes the next one."""
    opened = stream(artifact, [f"S{number:04d}" for number in range(symbols)])
    days = (EPOCH + timedelta(days=number) for number in itertools.count())

    def step() -> object:
        return opened.step(values, open_time=next(days))

    for _ in range(bars):
        step()
    return step


def promises() -> list[Promise]:
    day = Interval.parse("1d")
    training, crowd = panel(50, 400, day), panel(1_000, 1, day, seed=2)
    trees = engine("lightgbm").fit(training, features=FEATURES, params={"trees": 300, "num_leaves": 63}, seed=7)
    quick = {"minimum_steps": 2, "maximum_steps": 3}
    causal = engine("transformer").fit(training, features=FEATURES, params=quick, seed=7)
    recurrent = engine("gru").fit(training, features=FEATURES, params=quick, seed=7)
    wide = crowd.select(FEATURES).to_numpy()
    one = wide[:1].copy()
    return [
        Promise("transformer, cached step, 1 symbol", streamed(causal, 1, one, 70), 0.3),
        Promise("transformer, cached step, 1,000 symbols", streamed(causal, 1_000, wide, 70), 10.0),
        Promise("transformer, predict_batch, 1,000 symbols", lambda: predict_batch(causal, crowd), 100.0),
        Promise("GRU, cached step, 1 symbol", streamed(recurrent, 1, one, 70)),
        Promise("GRU, cached step, 1,000 symbols", streamed(recurrent, 1_000, wide, 70)),
        Promise("GRU, predict_batch, 1,000 symbols", lambda: predict_batch(recurrent, crowd)),
        Promise("LightGBM 300 × 63, stream, 1 row", streamed(trees, 1, one, 0), 0.015),
        Promise("LightGBM 300 × 63, Booster.predict, 1 row", booster_predict(trees, one)),
        Promise("LightGBM 300 × 63, stream, 1,000 rows", streamed(trees, 1_000, wide, 0), 10.0),
        Promise("LightGBM 300 × 63, predict_batch, 1,000 rows", lambda: predict_batch(trees, crowd), 10.0),
    ]


def booster_predict(artifact: Artifact, row: np.ndarray) -> Callable[[], object]:
    """LightGBM's own way from Python, for comparison."""
    import lightgbm

    booster, single = lightgbm.Booster(model_str=artifact.text), row.astype(np.float32)
    return lambda: booster.predict(single, num_threads=1)


def inference() -> None:
    print(f"inference: {len(FEATURES)} features, milliseconds")
    for one in promises():
        middle, shortest = median(one.call)
        limit = "" if one.limit is None else f", promised {one.limit:g}: {'kept' if middle <= one.limit else 'MISSED'}"
        print(f"  {one.name:46} median {middle:9.4f}, shortest {shortest:9.4f}{limit}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of inference, and of a walk-forward of every engine")
    parser.add_argument("panels", nargs="*", default="inference", choices=["inference", *PANELS])
    parser.add_argument("--engines", default=",".join(ENGINES))
    arguments = parser.parse_args()
    for name in [arguments.panels] if isinstance(arguments.panels, str) else arguments.panels:
        if name == "inference":
            inference()
        else:
            measure(name, tuple(arguments.engines.split(",")))


if __name__ == "__main__":
    main()
