"""Whether a prediction may count: held against the inputs it was made from, its engine's past and the other engines.

Four rules (DESIGN §6), each causal: what it compares with was known before the fold of the prediction begins. Cheap enough for
the live path: bounds are fitted once a fold, and judging a row is a few subtractions.

- missing: too many of the row's features are unknown.
- distance: the row lies far outside of the training window. Each feature's distance is |x − median| over the reach of that
  window on x's side (from its median to its 1 % or 99 % quantile), at most 100; a row's is the root mean square over its
  known features. A typical row has about 0.5, a row on the edge of every feature 1.
- range: the prediction lies far outside of what the engine said in earlier folds (from the 1 % to the 99 % quantile).
- disagreement: standard deviation of the engines' centred ranks of a symbol, over the largest possible one: 0 where all rank it
  alike, 1 where half put it first and half last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MISSING, DISTANCE, RANGE, DISAGREEMENT, MEMBERS = "missing", "distance", "range", "disagreement", "members"
WHY = {
    MISSING: "too many features unknown",
    DISTANCE: "features far outside of the training window",
    RANGE: "far outside of what the engine predicted before",
    DISAGREEMENT: "the engines contradict each other",
    MEMBERS: "rejected for most of the engines",
}
TAIL = 0.01
FARTHEST = 100.0
_REJECTED = pl.Schema(
    {
        "symbol": pl.String(),
        "open_time": pl.Datetime("us", "UTC"),
        "why": pl.String(),
        "value": pl.Float64(),
        "limit": pl.Float64(),
    }
)


class PastRange(NamedTuple):
    """What an engine said before: quantiles `TAIL` and 1 − `TAIL` of `size` predictions."""

    low: float
    high: float
    size: int


def no_rejections() -> pl.DataFrame:
    """symbol, open_time, why, value, limit without a row."""
    return pl.DataFrame(schema=_REJECTED)


def feature_bounds(training: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """feature, median, low, high (quantiles `TAIL` and 1 − `TAIL`) of the finite values of a training window, null without."""
    rows = []
    for name in features:
        values = training[name].cast(pl.Float64)
        finite = values.filter(values.is_finite())
        found = [finite.quantile(at, "linear") for at in (0.5, TAIL, 1.0 - TAIL)]
        rows.append((name, *found))
    schema = {"feature": pl.String, "median": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def missing_share(frame: pl.DataFrame, features: Sequence[str]) -> pl.Series:
    """Share of `features` that are null, NaN or infinite, for each row; 0 without features."""
    if not features:
        return pl.Series("missing", np.zeros(frame.height))
    unknown = [(~pl.col(name).cast(pl.Float64).is_finite()).fill_null(value=True).cast(pl.Float64) for name in features]
    return frame.select(pl.mean_horizontal(unknown).alias("missing")).to_series()


def distances(frame: pl.DataFrame, bounds: pl.DataFrame) -> pl.Series:
    """How far each row lies from the window of `bounds` (see the module); NaN where no feature can be judged.

    A feature that did not vary in the window cannot be judged. An infinite value counts as unknown, which `missing_share` sees.
    """
    total, known = np.zeros(frame.height), np.zeros(frame.height)
    for name, median, low, high in bounds.iter_rows():
        if median is None or name not in frame.columns:
            continue
        values = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() - median
        reach = np.where(values >= 0.0, high - median, median - low)
        widest = max(high - median, median - low)
        # A side without reach (a feature that is mostly at its bound) takes the other side's.
        reach = np.where(reach > 1e-9 * abs(median), reach, widest)
        fine = np.isfinite(values) & (reach > 1e-9 * abs(median)) & (reach > 0.0)
        share = np.minimum(np.abs(np.where(fine, values, 0.0)) / np.where(fine, reach, 1.0), FARTHEST)
        total += share * share
        known += fine
    return pl.Series("distance", np.sqrt(np.where(known > 0, total / np.maximum(known, 1), np.nan)))


def past_range(predictions: pl.Series) -> PastRange | None:
    """Range of the finite ones among `predictions`; None without any."""
    finite = predictions.cast(pl.Float64).drop_nulls()
    finite = finite.filter(finite.is_finite())
    low, high = finite.quantile(TAIL, "linear"), finite.quantile(1.0 - TAIL, "linear")
    return None if low is None or high is None else PastRange(float(low), float(high), finite.len())


def widened(ranges: Sequence[PastRange | None]) -> PastRange | None:
    """The range that covers several; None without any."""
    known = [one for one in ranges if one is not None]
    if not known:
        return None
    return PastRange(min(one.low for one in known), max(one.high for one in known), sum(one.size for one in known))


def outside(predictions: pl.Series, past: PastRange) -> pl.Series:
    """How far each prediction lies outside of `past`, in widths of it; 0 inside, NaN where it cannot be told."""
    width = past.high - past.low
    if not width > 0.0:
        return pl.Series("outside", np.full(len(predictions), np.nan))
    values = predictions.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return pl.Series("outside", np.maximum(np.maximum(values - past.high, past.low - values), 0.0 * values) / width)


def disagreement(ranks: pl.DataFrame, engines: Sequence[str]) -> pl.Series:
    """How far the engines' centred ranks of each row lie apart, 0 to 1; NaN with one engine or one symbol alone.

    ranks: open_time and one column for each engine, scaled to unit variance (`models.ensemble.ranks`), null without a score.
    """
    values = ranks.select(pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in engines).to_numpy()
    known = np.isfinite(values)
    count = known.sum(axis=1)
    safe = np.maximum(count, 1)
    mean = np.where(known, values, 0.0).sum(axis=1) / safe
    spread = np.sqrt((np.where(known, values - mean[:, None], 0.0) ** 2).sum(axis=1) / safe)
    symbols = ranks.select(pl.len().over("open_time")).to_series().to_numpy().astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        most = (symbols - 1.0) / 2.0 / np.sqrt((symbols * symbols - 1.0) / 12.0)
        return pl.Series("disagreement", np.where((count > 1) & (symbols > 1), spread / most, np.nan))


def rejected_rows(rows: pl.DataFrame, values: pl.Series, limit: float, why: str) -> pl.DataFrame:
    """symbol, open_time, why, value, limit of the `rows` whose value lies above `limit`; NaN does not."""
    above = (values.fill_nan(None) > limit).fill_null(value=False)
    return rows.filter(above).select(
        "symbol",
        pl.col("open_time").cast(pl.Datetime("us", "UTC")),
        pl.lit(why).alias("why"),
        values.filter(above).alias("value"),
        pl.lit(limit, pl.Float64).alias("limit"),
    )
