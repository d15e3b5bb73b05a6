"""Alpha158 side by side with pyqlib and polars, in one run: `python -m benchmarks.alpha158 [--symbols 800] [--bars 3400]`.

Each contender has a process of its own, all on the same panel and the same cores: seconds for the features alone, then seconds
and peak memory with the features written to Parquet. pyqlib gets an environment of its own from peers-qlib.txt (some minutes),
or give `--qlib-python`. With `--peer-symbols N` all are compared on the first N symbols, which is as good for a ratio.
Prints ratios, the agreement of all 158 with pyqlib, and what one new bar costs.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.features import COLUMNS, panel, step_seconds
from benchmarks.peers import polars_alpha158
from tidemill.features.api import compute, feature_set, warm
from tidemill.features.partitions import by_time
from tidemill.features.prices import average_price

_HERE = Path(__file__).resolve().parent
_PROCESSES = 2
_ROUNDS = 3


def tidemill(bars: pl.DataFrame, folder: Path | None) -> None:
    """Years in turn, float64; written when there is a folder."""
    for number, (frame, _) in enumerate(by_time(bars, feature_set("alpha158"), every="1y", reuse=True)):
        if folder is not None:
            frame.write_parquet(folder / f"{number}.parquet", compression="lz4")


def polars(bars: pl.DataFrame, folder: Path | None) -> None:
    frame = polars_alpha158.compute(bars)
    if folder is not None:
        frame.write_parquet(folder / "0.parquet", compression="lz4")


CONTENDERS = {"tidemill": tidemill, "polars": polars}


def child(name: str, source: Path) -> None:
    """Run one contender on the panel in `source`; prints the seconds of each round and of the written one, and the peak GiB."""
    if name == "tidemill":
        warm()
    bars, seconds, work = pl.read_parquet(source), [], []
    for _ in range(_ROUNDS):
        start, begin = time.perf_counter(), time.process_time()
        CONTENDERS[name](bars, None)
        seconds.append(time.perf_counter() - start)
        work.append(time.process_time() - begin)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        CONTENDERS[name](bars, Path(folder))
        written = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": min(seconds), "work": min(work), "written": written, "peak": peak}))


def measured(name: str, bars: pl.DataFrame, folder: Path) -> dict[str, float]:
    source = folder / f"{name}.parquet"
    bars.write_parquet(source)
    command = [sys.executable, "-m", "benchmarks.alpha158", "--child", name, "--panel", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def qlib_environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(folder / "qlib")], check=True)
    python = folder / "qlib" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(_HERE / "peers-qlib.txt")], check=True)
    return python


def ratios(seconds: float, work: float, ours: dict[str, float]) -> str:
    """On a shared machine the second is the steadier one."""
    return f"{seconds / ours['seconds']:.1f} by the clock, {work / ours['work']:.1f} by CPU time"


def with_qlib(python: Path, bars: pl.DataFrame, folder: Path) -> tuple[float, float, dict[str, np.ndarray]]:
    """Seconds by the clock, of CPU, and each feature as symbols × bars."""
    count = bars["symbol"].n_unique()
    values = {name: bars[name].to_numpy().reshape(count, -1) for name in COLUMNS}
    values["vwap"] = average_price(values["high"], values["low"], values["close"], values["volume"])
    source, target = folder / "bars.npz", folder / "features.npy"
    with source.open("wb") as file:
        np.savez(file, allow_pickle=False, **values)
    script = _HERE / "peers" / "qlib_alpha158.py"
    command = [str(python), str(script), str(source), str(target), str(_PROCESSES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["seconds"], answer["work"], dict(zip(answer["names"], np.load(target), strict=True))


def agreement(bars: pl.DataFrame, theirs: dict[str, np.ndarray]) -> Iterable[str]:
    """A line for each family: features, values compared, worst distance over max(1, |value|), places where one side is NaN."""
    frame, _ = compute(bars, feature_set("alpha158"))
    families: dict[str, list[tuple[float, int, int, int]]] = {}
    for name, values in theirs.items():
        mine, other = frame[name].to_numpy(), np.where(np.isfinite(values), values, np.nan).ravel()
        both = ~np.isnan(mine) & ~np.isnan(other)
        error = np.abs(mine[both] - other[both]) / np.maximum(1.0, np.abs(other[both]))
        stem = name.rstrip("0123456789")
        missing = int((np.isnan(mine) & ~np.isnan(other)).sum()), int((~np.isnan(mine) & np.isnan(other)).sum())
        families.setdefault(stem, []).append((float(error.max(initial=0.0)), *missing, int(both.sum())))
    for stem, found in families.items():
        worst = max(row[0] for row in found)
        ours, others, compared = (sum(row[at] for row in found) for at in (1, 2, 3))
        shown = f"  {stem:6s} {len(found)} features, {compared:>9,} values, worst {worst:.1e}"
        yield f"{shown}, NaN here only {ours}, there only {others}"


def flat_stretches(bars: pl.DataFrame) -> pl.DataFrame:
    """The panel with what separates definitions: halts at one price, zero volume, missing values."""
    rng = np.random.default_rng(5)
    count = len(bars)
    place = pl.int_range(pl.len()).over("symbol")
    halted = bars.with_columns(
        pl.when(place.is_between(400, 480)).then(pl.lit(50.0)).otherwise(pl.col(name)).alias(name) for name in COLUMNS[:4]
    )
    return halted.with_columns(
        pl.when(pl.Series(rng.random(count) < 0.02)).then(0.0).otherwise(pl.col("volume")).alias("volume"),
        pl.when(pl.Series(rng.random(count) < 0.01)).then(float("nan")).otherwise(pl.col("close")).alias("close"),
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=800)
    parser.add_argument("--bars", type=int, default=3400)
    parser.add_argument("--peer-symbols", type=int, help="compare with peers on so many symbols  [default: all]")
    parser.add_argument("--qlib-python", type=Path, help="Python of an environment that holds pyqlib")
    parser.add_argument("--no-qlib", action="store_true")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--panel", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(options: argparse.Namespace, bars: pl.DataFrame, folder: Path) -> None:
    count = options.peer_symbols or options.symbols
    few = bars.head(count * options.bars)
    ours, theirs = measured("tidemill", few, folder), measured("polars", few, folder)
    print(f"158 features, {count} symbols × {options.bars} bars, float64, {_PROCESSES} cores")
    for name, found, how in (("tidemill", ours, "by years"), ("polars (143)", theirs, "at once")):
        print(f"  {name:12s} {found['seconds']:.2f} s, {found['work']:.2f} s of CPU")
        print(f"    to Parquet {how}: {found['written']:.2f} s, peak memory {found['peak']:.2f} GiB")
    print(f"    ratio {ratios(theirs['seconds'], theirs['work'], ours)}, for 143 features against 158")
    if options.no_qlib:
        return
    python = options.qlib_python or qlib_environment(folder)
    seconds, work, values = with_qlib(python, few, folder)
    print(f"  {'pyqlib':12s} {seconds:.2f} s, {work:.2f} s of CPU")
    print(f"    ratio {ratios(seconds, work, ours)}")
    print("agreement with pyqlib on the panel:")
    print("\n".join(agreement(few, values)))
    rough = flat_stretches(few.head(min(count, 10) * options.bars))
    print("agreement with pyqlib on a panel with halts, zero volume and missing closes:")
    print("\n".join(agreement(rough, with_qlib(python, rough, folder)[2])))


def main() -> None:
    options = arguments()
    if options.child:
        child(options.child, options.panel)
        return
    warm()
    bars = panel(options.symbols, options.bars)
    with tempfile.TemporaryDirectory() as folder:
        compare(options, bars, Path(folder))
        if options.peer_symbols and options.peer_symbols < options.symbols:
            whole = measured("tidemill", bars, Path(folder))
            print(f"  tidemill, {options.symbols} symbols × {options.bars} bars: {whole['seconds']:.2f} s; to Parquet by years "
                  f"{whole['written']:.2f} s, peak {whole['peak']:.2f} GiB")  # fmt: skip
    for count in (1_000, 1):
        median, late = step_seconds(feature_set("alpha158"), count)
        print(f"one new bar, {count} symbols × 158: median {median * 1e6:.1f} µs (p99 {late * 1e6:.1f})")


if __name__ == "__main__":
    main()
