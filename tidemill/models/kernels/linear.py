"""The compiled step of a linear engine."""

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry

Floats = NDArray[np.float64]


@entry
def linear_rows(
    values: Floats,
    lower: Floats,
    upper: Floats,
    mean: Floats,
    deviation: Floats,
    weights: Floats,
    intercept: float,
    limit: float,
    made: Floats,
) -> None:
    """made[rows] := intercept + Σ weight · standardised value, feature after feature, of values [rows, features].

    The bits of `base.Standardizer.column` and of a sum over whole columns; NaN with fewer than half of the features known.
    """
    rows, features = values.shape
    for row in range(rows):
        total, known = intercept, 0
        for feature in range(features):
            value, scaled = values[row, feature], 0.0
            if np.isfinite(value):
                known += 1
                if deviation[feature] > 0.0:
                    value = min(max(value, lower[feature]), upper[feature])
                    scaled = min(max((value - mean[feature]) / deviation[feature], -limit), limit)
            total += scaled * weights[feature]
        made[row] = total if 2 * known >= features else np.nan
