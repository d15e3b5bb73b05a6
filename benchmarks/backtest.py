"""Bars a second of the moving-average cross: the public backtest beside vectorbt, polars and pandas, in one run; and a sweep.

    python -m benchmarks.backtest [--symbols 505] [--slots 1259] [--rounds 7] [--vectorbt PYTHON] [--no-sweep]

Ours is the public call from a bars frame, with fees and whole lots, to account, fills and trades. vectorbt does the same from
wide frames that are ready (means, signals, orders at the next open in whole lots, equity), each symbol an account of its own;
it gets an environment from peers-vectorbt.txt (some minutes), or --vectorbt names the python of one that is there. polars and
pandas work out signals and an account without lots, volume caps or shared funds. Best of the rounds; rounds are interleaved, so
that a noisy machine is noisy for all. First, one symbol in any fraction: both must come to the same equity.

The sweep: 1,000 pairs of 500 symbols × 1,259 days in a process of its own, each pair counted in a trial ledger.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from tidemill.backtest.backtest import BacktestInputs, Options, backtest_panel
from tidemill.backtest.by_strategy import backtest_strategy
from tidemill.backtest.panel import bars_panel
from tidemill.calendars import XNYS
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.strategies.registry import weigh

_HERE = Path(__file__).resolve().parent
DAY = Interval.parse("1d")
FAST, SLOW, FEE, CASH = 10, 30, 0.001, 1_000_000.0
COSTS = CostSpec(fee_bps=FEE * 1e4, slippage_bps=0.0, capital=CASH)
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


class Vectorbt:
    """A process of the peer's own environment that runs once whenever it is asked."""

    def __init__(self, python: Path, bars: pl.DataFrame, folder: Path, *, lots: float) -> None:
        panel = bars_panel(bars, DAY)
        source = folder / f"panel-{len(panel.axes.symbols)}.npz"
        with source.open("wb") as file:
            np.savez(file, allow_pickle=False, open=panel.open, close=panel.close)
        given = [str(value) for value in (source, FAST, SLOW, FEE, CASH, lots)]
        command = [str(python), str(_HERE / "peers" / "vectorbt_cross.py"), *given]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self) -> dict[str, float]:
        """Seconds, and the equity that it came to."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("vectorbt has no pipes")
        print("go", file=self._process.stdin, flush=True)
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def vectorbt_python(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(folder / "vectorbt")], check=True)
    python = folder / "vectorbt" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(_HERE / "peers-vectorbt.txt")], check=True)
    return python


def instruments(bars: pl.DataFrame, lot: float) -> dict[str, Instrument]:
    symbols = bars["symbol"].unique()
    return {name: Instrument(venue="bench", symbol=name, calendar=XNYS, lot=lot) for name in symbols}


def agreement(python: Path, folder: Path) -> str:
    """One symbol, any fraction, all in: the same rules, so the same equity."""
    bars = synthetic(1, 2_000)
    result = backtest_strategy("sma_cross", PARAMS, bars, interval=DAY, instruments=instruments(bars, 0.0), costs=COSTS)
    peer = Vectorbt(python, bars, folder, lots=0.0)
    theirs = peer.run()["equity"]
    peer.close()
    return f"one symbol: {result.final_equity:,.6f} here, {theirs:,.6f} in vectorbt"


def best_of(rounds: int, work: dict[str, Callable[[], float]]) -> dict[str, float]:
    found = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            found[name] = min(found[name], call())
    return found


def timed(call: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    return run


def compared(bars: pl.DataFrame, rounds: int, python: Path, folder: Path) -> dict[str, float]:
    table = bars.to_pandas()
    opens, closes = (table.pivot(index="open_time", columns="symbol", values=name) for name in ("open", "close"))
    lots = instruments(bars, 1.0)
    panel = bars_panel(bars, DAY)
    targets = panel.spread(weigh("sma_cross", bars, PARAMS, {}, DAY).weights.get_column("weight"))
    inputs = BacktestInputs(panel, targets, DAY, lots)
    peer = Vectorbt(python, bars, folder, lots=1.0)
    work: dict[str, Callable[[], float]] = {
        "tidemill": timed(lambda: backtest_strategy("sma_cross", PARAMS, bars, interval=DAY, instruments=lots, costs=COSTS)),
        "tidemill, scan alone": timed(lambda: backtest_panel(inputs, COSTS, Options(resize=False))),
        "vectorbt, wide frames ready": lambda: peer.run()["seconds"],
        "polars, long frames": timed(lambda: polars_peer(bars)),
        "pandas, wide frames ready": timed(lambda: pandas_peer(opens, closes)),
    }
    for call in work.values():
        call()  # compile and warm
    found = best_of(rounds, work)
    peer.close()
    return found


def sweep_child() -> None:
    """The sweep and its entry into a ledger of its own, in this process; prints figures as JSON."""
    from benchmarks.homes import new_homes
    from tidemill.config import Settings
    from tidemill.evaluation.sweep import sweep_frame
    from tidemill.study.workspace import open_workspace

    bars = synthetic(500, 1_259)
    grid = {"fast": list(range(2, 22)), "slow": list(range(30, 230, 4))}
    warm = {"fast": [2], "slow": [30]}
    with new_homes() as (home,), open_workspace(Settings(home=home)) as workspace:
        for given in (warm, grid):
            begun = time.perf_counter()
            ledger = lambda: nullcontext(workspace)  # noqa: E731 - what a caller gives
            made = sweep_frame(bars, "sma_cross", given, fee_bps=FEE * 1e4, slippage_bps=0.0, ledger=ledger)
            seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "runs": made.runs.height, "trials": made.runs["trial"].n_unique(), "peak": peak}))


def sweep() -> None:
    command = [sys.executable, "-m", "benchmarks.backtest", "--child"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    rate = answer["runs"] * 500 * 1_259 / answer["seconds"] / 1e6
    print(
        f"sweep: {answer['runs']:,} pairs × 500 × 1,259, {answer['trials']:,} trials counted, {answer['seconds']:.1f} s "
        f"({rate:,.0f} M bars/s), peak {answer['peak']:.2f} GiB"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("symbols", 505), ("slots", 1_259), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--vectorbt", type=Path, help="python of an environment that has vectorbt  [default: made anew]")
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.child:
        sweep_child()
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        python = given.vectorbt or vectorbt_python(folder)
        print(agreement(python, folder))
        found = compared(synthetic(given.symbols, given.slots), given.rounds, python, folder)
    cells = given.symbols * given.slots
    print(f"cross of {FAST}/{SLOW}, {given.symbols} symbols × {given.slots} bars, fees {FEE:.2%}, best of {given.rounds}")
    for name, seconds in found.items():
        ratio = f"{seconds / found['tidemill']:8.1f} ×" if not name.startswith("tidemill") else ""
        print(f"  {name:<30} {seconds * 1e3:8.1f} ms {cells / seconds / 1e6:8.1f} M bars/s {ratio}")
    if not given.no_sweep:
        sweep()


if __name__ == "__main__":
    main()
