"""Bars a second of the moving-average cross: the public backtest beside vectorised peers, in one run.

    python benchmarks/backtest.py [--symbols 505] [--slots 1259] [--rounds 7]

The peers work out signals and an account without lots, volume caps or shared funds: polars over long frames, pandas over
wide ones.
Best of the rounds; rounds are interleaved, so that a noisy machine is noisy for all.
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl

from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.engine.backtest import Inputs, Options, backtest_panel
from tidemill.engine.panel import bars_panel
from tidemill.engine.strategies import backtest_strategy
from tidemill.strategies.registry import target_weights

DAY = Interval.parse("1d")
FAST, SLOW, FEE = 10, 30, 0.001
COSTS = CostSpec(fee_bps=FEE * 1e4, slippage_bps=0.0)
PARAMS = {"fast": FAST, "slow": SLOW}


def synthetic(symbols: int, slots: int) -> pl.DataFrame:
    random = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.015, (symbols, slots)), axis=1))
    opened = close * np.exp(random.normal(0, 0.005, (symbols, slots)))
    times = pl.Series([datetime(2013, 2, 8, tzinfo=UTC) + timedelta(days=at) for at in range(slots)])
    return pl.DataFrame(
        {
            "symbol": np.repeat([f"S{number:04d}" for number in range(symbols)], slots),
            "open_time": pl.concat([times] * symbols).cast(pl.Datetime("us", "UTC")),
            "open": opened.ravel(),
            "close": close.ravel(),
            "volume": random.uniform(1e6, 1e7, symbols * slots),
        }
    )


def polars_peer(bars: pl.DataFrame) -> float:
    """Long frames and window expressions; each symbol is an account of its own."""
    means = [pl.col("close").rolling_mean(length).over("symbol") for length in (FAST, SLOW)]
    held = (means[0] > means[1]).fill_null(False).shift(1).over("symbol").fill_null(False).cast(pl.Float64)
    frame = bars.lazy().with_columns(held.alias("held"))
    frame = frame.with_columns(pl.col("held").shift(1, fill_value=0.0).over("symbol").alias("before"))
    overnight = pl.col("open") / pl.col("close").shift(1).over("symbol")
    grown = 1 + pl.col("before") * (overnight - 1).fill_null(0.0)
    inside = 1 + pl.col("held") * (pl.col("close") / pl.col("open") - 1)
    factor = grown * inside * (1 - FEE * (pl.col("held") - pl.col("before")).abs())
    grown_by = frame.with_columns(factor.cum_prod().over("symbol").alias("equity"))
    return float(grown_by.group_by("symbol").agg(pl.col("equity").last()).collect().get_column("equity").to_numpy().mean())


def pandas_peer(opens: pd.DataFrame, closes: pd.DataFrame) -> float:
    """Wide frames, one column for each symbol."""
    held = (closes.rolling(FAST).mean() > closes.rolling(SLOW).mean()).shift(1, fill_value=False).astype(float)
    before = held.shift(1, fill_value=0.0)
    grown = 1 + before * (opens / closes.shift(1) - 1).fillna(0.0)
    factor = grown * (1 + held * (closes / opens - 1)) * (1 - FEE * (held - before).abs())
    return float(factor.cumprod().iloc[-1].mean())


def best_of(rounds: int, work: dict[str, Callable[[], object]]) -> dict[str, float]:
    found = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            begun = time.perf_counter()
            call()
            found[name] = min(found[name], time.perf_counter() - begun)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("symbols", 505), ("slots", 1_259), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    bars = synthetic(given.symbols, given.slots)
    wide = bars.to_pandas().pivot(index="open_time", columns="symbol", values=["open", "close"])
    panel = bars_panel(bars, DAY)
    targets = panel.spread(target_weights("sma_cross", bars, PARAMS, {}).get_column("weight"))
    inputs = Inputs(panel, targets, DAY, {})
    work: dict[str, Callable[[], object]] = {
        "tidemill, public call from a bars frame": lambda: backtest_strategy(
            "sma_cross", PARAMS, bars, interval=DAY, instruments={}, costs=COSTS
        ),
        "tidemill, scan alone (weights to account)": lambda: backtest_panel(inputs, COSTS, Options(resize=False)),
        "polars, long frames": lambda: polars_peer(bars),
        "pandas, wide frames, pivot not counted": lambda: pandas_peer(wide["open"], wide["close"]),
    }
    for call in work.values():
        call()  # compile and warm
    found = best_of(given.rounds, work)
    cells = given.symbols * given.slots
    print(f"cross of {FAST}/{SLOW}, {given.symbols} symbols × {given.slots} bars, fees {FEE:.2%}, best of {given.rounds}")
    for name, seconds in found.items():
        print(f"  {name:<44} {seconds * 1e3:8.1f} ms {cells / seconds / 1e6:8.1f} M bars/s")
    ours = found["tidemill, public call from a bars frame"]
    print(f"  ratio to polars {found['polars, long frames'] / ours:.1f} ×, to pandas {list(found.values())[3] / ours:.1f} ×")


if __name__ == "__main__":
    main()
