"""How likely it is that a book is right: p(x) = P(label > 0 | prediction x), rising in x, from what the book said before.

Isotonic regression (Barlow, Bartholomew, Bremner and Brunk, 1972) of the sign of the label on the prediction, straight between
the knots. One side of it is the confidence of a signal: p for long, 1 − p for short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# With fewer outcomes nothing is claimed.
LEAST = 500
UNKNOWN = 0.5


class Knot(NamedTuple):
    """Of a confidence map: with this prediction so many labels of one were above 0."""

    prediction: float
    share: float


def fit_confidence(predictions: Floats, labels: Floats) -> tuple[Knot, ...]:
    """The map of predictions whose labels are known; pairs with an unknown one are left out. Empty for fewer than `LEAST`."""
    known = np.isfinite(predictions) & np.isfinite(labels)
    if int(known.sum()) < LEAST:
        return ()
    from scipy.optimize import isotonic_regression  # 0.2 s, where a run with nothing to do needs none

    values, place, counts = np.unique(predictions[known], return_inverse=True, return_counts=True)
    above = np.bincount(place, weights=(labels[known] > 0.0).astype(np.float64)) / counts
    shares = isotonic_regression(above, weights=counts.astype(np.float64)).x
    # Between the first and the last prediction of one share nothing needs to be kept.
    edges = np.ones(len(values), dtype=np.bool_)
    edges[1:-1] = (shares[1:-1] != shares[:-2]) | (shares[1:-1] != shares[2:])
    return tuple(Knot(float(value), float(share)) for value, share in zip(values[edges], shares[edges], strict=True))


def confidence(knots: Sequence[Knot], predictions: Floats, direction: Floats) -> Floats:
    """Of signals, from the predictions behind them. direction: 1 long, -1 short, 0 flat, of which nothing is claimed."""
    if not knots:
        return np.full(len(predictions), UNKNOWN)
    at, shares = np.array(knots).T
    long = np.interp(predictions, at, shares)
    made = np.where(direction > 0.0, long, np.where(direction < 0.0, 1.0 - long, UNKNOWN))
    return np.where(np.isfinite(predictions), made, UNKNOWN)
