"""The compiled step of the ensemble: ranks of one bar time."""

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry, kernel

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


@kernel
def _centred(values: Floats, place: Indices, ranks: Floats) -> int:
    """Ranks of the finite of `values`, ties averaged, less their mean, at the symbols of `place`; returns how many."""
    finite, count = np.empty(values.size), 0
    for j in range(values.size):
        if np.isfinite(values[j]):
            place[count], finite[count] = j, values[j]
            count += 1
    order, first = np.argsort(finite[:count], kind="mergesort"), 0
    while first < count:
        last = first
        while last + 1 < count and finite[order[last + 1]] == finite[order[first]]:
            last += 1
        for at in range(first, last + 1):
            ranks[order[at]] = 0.5 * (first + last) + 1.0 - 0.5 * (count + 1.0)
        first = last + 1
    return count


@entry
def mean_of_ranks(values: Floats, weights: Floats, made: Floats) -> None:
    """made[symbols] := the ensemble of values [symbols, engines] at one bar time, as `ensemble.Ensemble` defines it."""
    symbols, engines = values.shape
    place, ranks = np.empty(symbols, np.int64), np.empty(symbols)
    total, present, heard = np.zeros(symbols), np.zeros(symbols), np.zeros(symbols, np.int64)
    for engine in range(engines):
        count = _centred(values[:, engine], place, ranks)
        # polars takes a division by a number as a product with its inverse; the bits of the batch are kept.
        spread = np.sqrt((float(count) * count - 1.0) * (1.0 / 12.0))
        for at in range(count):
            j = place[at]
            total[j] += (ranks[at] / spread if count > 1 else 0.0) * weights[engine]
            present[j] += weights[engine]
            heard[j] += 1
    for j in range(symbols):
        made[j] = total[j] / present[j] if 2 * heard[j] >= engines and present[j] > 0.0 else np.nan


@entry
def apart_of_ranks(values: Floats, there: Flags, made: Floats) -> None:
    """made[symbols] := how far the engines' centred ranks of a symbol lie apart at one bar time (`quality.validity`).

    values: [symbols, engines]; there: the symbols that are compared.
    """
    symbols, engines = values.shape
    place, ranks, scored = np.empty(symbols, np.int64), np.empty(symbols), np.full((symbols, engines), np.nan)
    for engine in range(engines):
        count = _centred(values[:, engine], place, ranks)
        spread = np.sqrt((float(count) * count - 1.0) * (1.0 / 12.0))
        for at in range(count):
            scored[place[at], engine] = ranks[at] / spread if count > 1 else 0.0
    compared = float(there.sum())
    most = (compared - 1.0) / 2.0 / np.sqrt((compared * compared - 1.0) / 12.0)
    for j in range(symbols):
        made[j] = _spread(scored[j]) / most if compared > 1.0 else np.nan


@kernel
def _spread(row: Floats) -> float:
    """Deviation of the known cells of a row; NaN with fewer than two."""
    count, total, squares = 0, 0.0, 0.0
    for value in row:
        if np.isfinite(value):
            count += 1
            total += value
    mean = total / max(count, 1)
    for value in row:
        if np.isfinite(value):
            squares += (value - mean) ** 2
    return np.sqrt(squares / count) if count > 1 else np.nan
