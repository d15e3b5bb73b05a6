"""What a strategy over covariances works out does not depend on how many threads the environment asks for."""

import os
import subprocess
import sys

_CODE = """
import hashlib
import numpy as np
from tidemill.strategies.optimise import Bounds, optimal_weights, shrunk_covariance
chance = np.random.default_rng(1)
matrix = shrunk_covariance(0.01 * chance.normal(size=(252, 500)), 60).matrix
weights = optimal_weights(0.001 * chance.normal(size=500), matrix, Bounds(np.ones(500), 1.0, 0.1, False), 10.0)
print(hashlib.sha256(matrix.tobytes()).hexdigest(), hashlib.sha256(weights.tobytes()).hexdigest())
"""


def worked_out(threads: str | None) -> str:
    """Hashes of covariance and weights of 500 symbols in a process that is asked for so many threads, or for none."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    given = {name: value for name, value in os.environ.items() if name not in names}
    asked = {} if threads is None else dict.fromkeys(names, threads)
    done = subprocess.run([sys.executable, "-c", _CODE], env=given | asked, capture_output=True, text=True, check=True)
    return done.stdout


def test_covariance_and_weights_of_five_hundred_symbols_are_the_same_on_any_number_of_threads() -> None:
    alone = worked_out("1")
    assert len(alone.split()) == 2
    assert worked_out("2") == alone
    assert worked_out(None) == alone
