"""Alpha158 with pyqlib's own operators over arrays in memory: `python qlib_alpha158.py IN.npz OUT.npy PROCESSES`.

Runs in an environment that holds pyqlib and nothing of Tidemill. IN: names open, high, low, close, volume, vwap, each symbols ×
bars. OUT: features × symbols × bars. Prints the names and the seconds of the features alone, as JSON. Storage is left out:
qlib's files hold float32, and reading them would count against it.
"""

import json
import multiprocessing
import sys
import time

import numpy as np
import pandas as pd
import qlib.data.base
from qlib.config import C
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import ops
from qlib.data.cache import H
from qlib.data.ops import register_all_ops
from qlib.utils import parse_field

DATA: dict[str, np.ndarray] = {}
FIELDS, NAMES = Alpha158DL.get_feature_config()


def load_column(self: object, instrument: int, *_: object) -> pd.Series:
    return pd.Series(DATA[self._name][instrument])  # type: ignore[attr-defined]


def features_of(symbol: int) -> tuple[np.ndarray, float]:
    """Each feature of one symbol, and the seconds of CPU that they took."""
    H["f"].clear()
    begin = time.process_time()
    length = DATA["close"].shape[1]
    out = np.empty((len(FIELDS), length))
    for row, field in enumerate(FIELDS):
        # qlib itself evaluates its own field strings this way.
        expression = eval(parse_field(field), vars(ops) | {"Feature": qlib.data.base.Feature})
        out[row] = expression.load(symbol, 0, length - 1, "day").to_numpy()
    return out, time.process_time() - begin


def main() -> None:
    source, target, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    DATA.update(np.load(source))
    register_all_ops(C)
    qlib.data.base.Feature._load_internal = load_column
    symbols = range(len(DATA["close"]))
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        pool.map(features_of, symbols[:processes])  # imports and first calls of each process
        start = time.perf_counter()
        result = pool.map(features_of, symbols, chunksize=1)
        seconds = time.perf_counter() - start
    np.save(target, np.stack([values for values, _ in result], axis=1))
    print(json.dumps({"seconds": seconds, "work": sum(work for _, work in result), "names": NAMES}))


if __name__ == "__main__":
    main()
