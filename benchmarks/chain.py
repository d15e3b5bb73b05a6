"""How long each link of the chain takes for one bar of every symbol: hot, and after a quiet minute.

    python -m benchmarks.chain [--symbols 1 1000] [--quiet SECONDS] [--module]

Prints p50 and p99 in microseconds. After a quiet time caches are cold and the processor sleeps, as before a bar that closes
once a minute; a few such calls are made, so its p50 alone says something. What has no step yet is not listed. With --module
only what a person's file declares is timed, which is stepped in a process of its own.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain as one_after_another
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import polars as pl

from benchmarks.models import panel
from tidemill.backtest.backtest import Options, terms_of
from tidemill.calendars import NEVER
from tidemill.domain.experiment import CostSpec, NeutraliseSpec, PredictionGuard
from tidemill.domain.intervals import Interval
from tidemill.features.api import feature_set
from tidemill.features.feature_set import FeatureSet
from tidemill.features.stream import FeatureStream
from tidemill.market.adjusting import Adjuster
from tidemill.models.ensemble import ENGINE
from tidemill.models.inference import stream
from tidemill.models.registry import SHIPPED_ENGINES, Engines, engine
from tidemill.quality.validity import PastRange, feature_bounds
from tidemill.strategies.base import Slots, Universe
from tidemill.strategies.neutral import Neutral
from tidemill.strategies.registry import strategy
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.chain import Chain, Deciding, Links
from tidemill.trading.checks import PredictionChecks
from tidemill.trading.function_columns import FunctionColumns
from tidemill.trading.ordering import Desk
from tidemill.user_modules.loading import load_module

WARM, HOT, COLD = 200, 2_000, 5
ENGINES: Mapping[str, Mapping[str, Any]] = {
    "ridge": {},
    "lightgbm": {"trees": 100},
    "transformer": {"minimum_steps": 2, "maximum_steps": 3},
}
DAY = Interval.parse("1d")


def links(symbols: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name → one step on made-up values."""
    random, names = np.random.default_rng(1), tuple(f"S{number:04d}" for number in range(symbols))
    bars = 50.0 + random.random((6, symbols))
    adjuster = Adjuster(names)
    yield "adjust", lambda: adjuster.step(0, bars)
    features = FeatureStream(feature_set("alpha158"), names)
    at = iter(range(10**9))
    yield "features (alpha158)", lambda: features.step(*bars[:5], open_time=_day(next(at)))
    trained = engine("ridge").fit(panel(50, 120, DAY), features=_columns(), params={}, seed=1)
    ridge, values = stream(trained, names), np.exp(0.05 * random.normal(size=(symbols, len(_columns()))))
    yield f"ridge ({len(_columns())} features)", lambda: ridge.step(values)
    scores = random.normal(size=(symbols, 4))
    made = ENGINE.fit(panel(2, 40, DAY).head(0), features=("a", "b", "c", "d"), params={}, seed=0)
    ensemble = stream(made, names)
    yield "ensemble of 4", lambda: ensemble.step(scores)
    bounds = feature_bounds(panel(50, 120, DAY), _columns())
    checks = PredictionChecks(PredictionGuard(), _columns(), bounds, "abcd", dict.fromkeys("abcd", PastRange(-1.0, 1.0, 5_000)))
    yield "checks of 4", lambda: checks.step(values, scores, np.ones(symbols, np.bool_))
    universe, true = Universe(names, np.ones(symbols, np.bool_)), np.ones((1, symbols), np.bool_)
    slots = Slots(np.array([0]), true, true, random.normal(size=(1, symbols)), true, bars[3:4].copy())
    for name in ("quantile", "long_only_top_k", "inverse_volatility", "sma_cross"):
        chosen = strategy(name)
        assert chosen.start is not None
        stepper = chosen.start(chosen.parse({} if name == "sma_cross" else {"every": 1}), universe, None)
        yield name, lambda stepper=stepper: stepper.scan(slots)  # type: ignore[misc]  # bound now
    weights = random.normal(0.0, 0.01, (1, symbols))
    for spec in (NeutraliseSpec(by="sector", sectors=dict.fromkeys(names, "x")), NeutraliseSpec(by="beta")):
        neutral = Neutral(spec, universe)
        yield f"neutral by {spec.by}", lambda neutral=neutral: neutral.scan(weights, slots.close)  # type: ignore[misc]  # as above


def whole(symbols: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """A bar of every symbol through all links, by the engine of each name."""
    random, names = np.random.default_rng(1), tuple(f"S{number:04d}" for number in range(symbols))
    features = feature_set("alpha158")
    training = _training(features.names)
    rows = 50.0 + random.random((64, 6, symbols))
    rows[:, 1], rows[:, 2] = rows[:, :4].max(axis=1), rows[:, :4].min(axis=1)
    true = np.ones(symbols, np.bool_)
    for name, params in ENGINES.items():
        links = Links(DAY, features, 20.0, PredictionGuard(), strategy("quantile"), _every_slot(), None, name, SHIPPED_ENGINES)
        model = engine(name).fit(training, features=features.names, params=params, seed=1)
        deciding = Deciding({name: model}, None, feature_bounds(training, features.names), {name: None})
        terms = terms_of(names, {}, CostSpec(), Options())
        desk = Desk(terms, 1e6, np.full(symbols, NEVER))
        chain = Chain(links, Universe(names, true), deciding, desk=desk)
        slots = iter([BarsOfSlot(_day(at), at, rows[at % len(rows)], true, true) for at in range(WARM + HOT + COLD)])
        yield f"chain of {name}", lambda chain=chain, slots=slots: chain.step(next(slots))  # type: ignore[misc]  # as above


def _training(features: Sequence[str]) -> pl.DataFrame:
    """Rows of made-up features under these names."""
    frame = panel(50, 120, DAY)
    random = np.random.default_rng(2)
    columns = [pl.Series(name, np.exp(0.05 * random.normal(size=frame.height))) for name in features]
    return frame.select("symbol", "open_time", *columns, "label", "label_end_at")


def _every_slot() -> msgspec.Struct:
    return strategy("quantile").parse({"every": 1})


MODULE = """
import numpy as np
import polars as pl

def weekly(bars):
    return bars.select("symbol", "open_time", own_return=pl.col("close") / pl.col("close").shift(5).over("symbol") - 1)

features(weekly, by_tail=6, columns=["own_return"])

def fit(training, *, features, penalty=10.0):
    x = training.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    return {"weights": np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ training["label"].to_numpy())}

def predict(model, frame, *, features):
    x = frame.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    return (x * model["weights"]).sum(axis=1)

engine("own_engine", fit, predict)

def best(predictions, held=2):
    rank = pl.col("prediction").rank("ordinal", descending=True).over("open_time")
    return predictions.select("symbol", "open_time", weight=pl.when(rank <= held).then(1.0 / held).otherwise(0.0))

strategy("own_strategy", best, by_tail=1)
"""


def links_of_a_module(symbols: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """As `links`, of a file that a person may write."""
    random, names = np.random.default_rng(1), tuple(f"S{number:04d}" for number in range(symbols))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "mine.py"
        file.write_text(MODULE)
        own = load_module(file).own
    owner, true = _Owner(), np.ones((1, symbols), np.bool_)
    made = own.engines["own_engine"]
    trained = made.fit(panel(50, 120, DAY), features=_columns(), params={}, seed=1)
    at, scorer, values = (
        iter(range(10**9)),
        stream(trained, names, Engines({"own_engine": made}).begun(owner)),
        random.normal(size=(symbols, len(_columns()))),
    )
    yield f"engine ({len(_columns())} features)", lambda: scorer.step(values, open_time=_day(next(at)))
    functions = FunctionColumns(FeatureSet(tuple(own.features.values())), names)
    functions.begin(owner)
    rows = 50.0 + random.random((6, symbols))
    yield "features (by_tail=6)", lambda: functions.step(np.empty((symbols, 0)), rows, true[0], _day(next(at)))
    begin = own.strategies["own_strategy"].begin
    assert begin is not None
    stepper = begin(owner)(own.strategies["own_strategy"].parse({}), Universe(names, true[0]), None)
    slots = Slots(np.array([0]), true, true, random.normal(size=(1, symbols)), true, rows[3:4].copy(), np.array([0]))
    yield "strategy (by_tail=1)", lambda: stepper.scan(slots)


class _Owner:
    """In place of a decider: the processes of the module end with it."""


def _columns() -> tuple[str, ...]:
    return tuple(name for name in panel(1, 2, DAY).columns if name not in {"symbol", "open_time", "label", "label_end_at"})


def _day(number: int) -> datetime:
    return datetime(1900, 1, 1, tzinfo=UTC) + timedelta(hours=number)


def timed(step: Callable[[], object], calls: int, quiet: float = 0.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Microseconds of each call; quiet: seconds of sleep before each."""
    found = []
    for _ in range(calls):
        if quiet:
            time.sleep(quiet)
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return np.array(found) * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--symbols", type=int, nargs="+", default=[1, 1_000])
    arguments.add_argument("--quiet", type=float, default=0.0, help="seconds before each cold call; 0: hot ones alone")
    arguments.add_argument("--module", action="store_true", help="what a person's file declares, and nothing else")
    given = arguments.parse_args()
    for symbols in given.symbols:
        print(f"{symbols:,} symbols")
        for name, step in links_of_a_module(symbols) if given.module else one_after_another(links(symbols), whole(symbols)):
            timed(step, WARM)
            hot = timed(step, HOT if symbols < 100 else HOT // 10)
            cold = f"  after {given.quiet:g} s p50 {np.median(timed(step, COLD, given.quiet)):9.1f}" if given.quiet else ""
            print(f"  {name:<24} p50 {np.median(hot):9.1f}  p99 {np.quantile(hot, 0.99):9.1f} µs{cold}", flush=True)


if __name__ == "__main__":
    main()
