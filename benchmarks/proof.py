"""The causality proof of `alpha158` on the S&P panel: `python benchmarks/proof.py [PATH] [set]`.

PATH: Parquet of daily bars of 505 symbols over 1,259 days. Prints seconds on the wall and of the processor, how many
computations the proof made, and what one computation of all features costs: compare the ratio, a shared machine is noisy.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tidemill.features.api import compute, feature_set, warm
from tidemill.market.panel_files import read_panel
from tidemill.validation.causality.features import prove_features

PANEL = Path(__file__).parents[2] / "shared/data/sp500_daily_2013_2018/sp500_daily.parquet"
LIMIT = 60.0


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PANEL
    name = sys.argv[2] if len(sys.argv) > 2 else "alpha158"
    if not path.is_file():
        sys.exit(f"There is no panel at {path}. Give its path.")
    warm()
    bars, features = read_panel(path), feature_set(name)
    alone = min(_seconds(lambda: compute(bars, features)) for _ in range(3))
    start, work = time.perf_counter(), time.process_time()
    proof = prove_features(features, bars)
    seconds, processor = time.perf_counter() - start, time.process_time() - work
    print(f"{bars.height:,} bars of {bars['symbol'].n_unique()} symbols, {len(features.names)} features of {name}")
    print(f"proven {len(proof.proven)}, refuted {len(proof.refuted)}, {proof.runs} computations")
    print(f"{seconds:.1f} s (limit {LIMIT:.0f} s), {processor:.1f} s of processor time, peak {_gigabytes():.2f} GB")
    print(f"one computation of everything {alone:.2f} s: the proof costs {seconds / alone:.0f} of them")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
