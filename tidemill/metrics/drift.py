"""Whether the present still looks like what a model was trained on."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Common reading of the index: below 0.1 nothing moved, above 0.25 the population is another one (Siddiqi 2006, ch. 6).
MOVED = 0.25
# A bin that is empty on one side would make the index infinite; this share stands for "hardly any".
_FLOOR = 1e-4


def population_stability_index(reference: ArrayLike, current: ArrayLike, bins: int = 10) -> float:
    """Σ (c − r) · ln(c / r) over the quantile bins of `reference` and one more bin for what is missing. No unit, ≥ 0.

    reference, current: 1-D; NaN and infinite values are missing ones. NaN when either is empty. A constant reference has
    three bins: below, at and above its value. Source: Siddiqi, Credit Risk Scorecards (2006).
    """
    before, now = np.asarray(reference, dtype=np.float64).ravel(), np.asarray(current, dtype=np.float64).ravel()
    if not before.size or not now.size:
        return float("nan")
    known = before[np.isfinite(before)]
    edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, bins + 1)[1:-1])) if known.size else np.empty(0)
    expected, found = (_shares(values, edges) for values in (before, now))
    return float(np.sum((found - expected) * np.log(found / expected)))


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of `values` below the first edge, at or beyond each edge in turn, and missing; none below the floor.

    A value on an edge has a bin of its own side on both samples alike, so discrete features need no jitter.
    """
    known = values[np.isfinite(values)]
    places = np.searchsorted(edges, known, side="left") + np.searchsorted(edges, known, side="right")
    counts = np.bincount(places, minlength=2 * edges.size + 1).astype(np.float64)
    shares = np.append(counts, values.size - known.size) / values.size
    return np.maximum(shares, _FLOOR)


def mean_shift(reference: ArrayLike, current: ArrayLike) -> float:
    """How far the mean of `current` lies from that of `reference`, in standard errors of the difference (Welch's t).

    For information coefficients by bar time: −2 says that skill fell by more than chance explains. NaN where either has fewer
    than two finite values or neither varies. Neighbouring values that share a label make it too large: thin them first.
    """
    before, now = (values[np.isfinite(values)] for values in (np.asarray(reference, float), np.asarray(current, float)))
    if before.size < 2 or now.size < 2:
        return float("nan")
    error = np.sqrt(before.var(ddof=1) / before.size + now.var(ddof=1) / now.size)
    return float((now.mean() - before.mean()) / error) if error > 0.0 else float("nan")
