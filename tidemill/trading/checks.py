"""Which predictions of a slot do not count: the step of `study.rejections`, with its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.compiled import entry, kernel
from tidemill.domain.experiment import PredictionGuard
from tidemill.models.kernels.ranks import apart_of_ranks
from tidemill.quality.validity import FARTHEST, PastRange

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Rules(NamedTuple):
    """Limits, NaN where a rule is switched off; bounds: [3, features] median, low and high, NaN for one that is not judged.

    past: [2, engines] lowest and highest of what each said before, NaN where that is too little to judge by.
    """

    missing: float
    distance: float
    range: float
    disagreement: float
    bounds: Floats
    past: Floats


class PredictionChecks:
    """Judges the predictions of engines and of their ensemble, slot by slot. Nothing is remembered from one to the next."""

    def __init__(
        self,
        spec: PredictionGuard,
        features: Sequence[str],
        bounds: pl.DataFrame,
        engines: Sequence[str],
        past: Mapping[str, PastRange | None],
    ) -> None:
        """bounds: `validity.feature_bounds` of the training window. past: engine → what it said before its decider's cut."""
        known = {name: row for name, *row in bounds.iter_rows()}
        table = [known.get(name) or [None] * 3 for name in features]
        ranges = [_judged_range(past.get(name), spec) for name in engines]
        self.rules = Rules(
            _limit(spec.missing),
            _limit(spec.distance),
            _limit(spec.range),
            _limit(spec.disagreement) if len(engines) > 1 else np.nan,
            np.ascontiguousarray(np.array(table, dtype=np.float64).reshape(-1, 3).T),
            np.array(ranges, dtype=np.float64).reshape(-1, 2).T.copy(),
        )

    def step(self, values: Floats, predictions: Floats, predicted: Flags) -> Flags:
        """Rejected [symbols, engines + 1], the ensemble last.

        values: features [symbols, features]. predictions: [symbols, engines], NaN for none. predicted: whether any engine was
        asked about the symbol: these are compared with one another.
        """
        predictions = np.ascontiguousarray(predictions)
        rejected = np.zeros((predictions.shape[0], predictions.shape[1] + 1), dtype=np.bool_)
        apart = np.empty(predictions.shape[0])
        apart_of_ranks(predictions, predicted, apart)
        judge_slot(values, predictions, apart, *self.rules, rejected)
        return rejected


def _limit(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _judged_range(past: PastRange | None, spec: PredictionGuard) -> tuple[float, float]:
    judged = past is not None and past.size >= spec.history
    return (past.low, past.high) if judged and past is not None else (np.nan, np.nan)


@kernel
def _far(row: Floats, bounds: Floats, missing: float, distance: float) -> bool:
    """Whether too many features of a row are unknown, or it lies too far from the training window (`quality.validity`)."""
    unknown, known, total = 0, 0, 0.0
    for at in range(row.size):
        if not np.isfinite(row[at]):
            unknown += 1
        median, low, high = bounds[0, at], bounds[1, at], bounds[2, at]
        value = row[at] - median
        if not np.isfinite(value):
            continue
        least, reach = 1e-9 * abs(median), high - median if value >= 0.0 else median - low
        if not reach > least:
            reach = max(high - median, median - low)
        if reach > least and reach > 0.0:
            share = min(abs(value) / reach, FARTHEST)
            total += share * share
            known += 1
    too_few = row.size > 0 and unknown / row.size > missing
    return too_few or (known > 0 and np.sqrt(total / known) > distance)


@kernel
def _outside(prediction: float, low: float, high: float) -> float:
    """How far a prediction lies outside of a range, in widths of it; NaN where it cannot be told."""
    if not (high - low > 0.0 and np.isfinite(prediction)):
        return np.nan
    return max(prediction - high, low - prediction, 0.0) / (high - low)


@entry
def judge_slot(
    values: Floats,
    predictions: Floats,
    apart: Floats,
    missing: float,
    distance: float,
    widths: float,
    disagreement: float,
    bounds: Floats,
    past: Floats,
    rejected: Flags,
) -> None:
    """rejected [symbols, engines + 1] := which predictions do not count. apart: disagreement of the engines' ranks."""
    symbols, engines = predictions.shape
    for j in range(symbols):
        far, strange = _far(values[j], bounds, missing, distance), 0
        for at in range(engines):
            alone = _outside(predictions[j, at], past[0, at], past[1, at]) > widths
            strange += alone
            rejected[j, at] = far or alone
        rejected[j, engines] = far or apart[j] > disagreement or strange / engines > 0.5
