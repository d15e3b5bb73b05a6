"""Ridge regression in closed form: the linear engine.

    weights = argmin  mean((target - intercept - X w)^2) + penalty * |w|^2        X standardised, so the penalty is fair
            = (X'X / n + penalty I)^-1  X'(target - intercept) / n                intercept: mean of the target

A prediction is a plain sum over features, in their order, so its bits do not depend on the batch; a matrix product would not
promise that (NUMBERS, Models).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl

from tidemill.linear_algebra import one_thread
from tidemill.models.artifact import Artifact, make
from tidemill.models.base import (
    NO_LINEAGE,
    SCALED_LIMIT,
    Dimension,
    EngineInfo,
    Floats,
    Lineage,
    RowScorer,
    Standardizer,
    decoded,
    feature_column,
    from_start,
    predictions,
    require_layout,
    require_scoring,
    training_inputs,
    training_set,
)

# OpenBLAS uses one thread for products of up to 2^18 multiplications.
_SINGLE_THREADED_PRODUCT = 1 << 18


class RidgeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """penalty: in units of the variance of one standardised feature."""

    penalty: Annotated[float, msgspec.Meta(gt=0.0, le=1e6)] = 0.1


@dataclass(frozen=True)
class LinearScorer:
    """Rows of features → predictions. learnt: lower, upper, mean, deviation, weights, one number a feature in each; see
    `linear_rows`.
    """

    learnt: tuple[Floats, Floats, Floats, Floats, Floats]
    intercept: float
    limit: float = SCALED_LIMIT

    def __call__(self, values: Floats, /) -> Floats:
        from tidemill.models.kernels.linear import linear_rows

        made = np.empty(len(values))
        linear_rows(values, *self.learnt, self.intercept, self.limit, made)
        return made


class Ridge:
    """Linear expected label from standardised features."""

    info = EngineInfo(
        name="ridge",
        kind="linear",
        about="ridge regression on standardised features, in closed form",
        params=RidgeParams,
        space=(Dimension("penalty", 1e-3, 1e3, log=True),),
    )

    def fit(
        self,
        training: pl.DataFrame,
        *,
        features: tuple[str, ...],
        params: Mapping[str, Any],
        seed: int,
        lineage: Lineage = NO_LINEAGE,
    ) -> Artifact:
        chosen = decoded(RidgeParams, params, self.info.name)
        data = training_set(training, features)
        scaling = Standardizer.fit(data)
        target = data.target[data.usable]
        intercept = target.mean()
        columns = [scaling.column(position, data.column(name)[data.usable]) for position, name in enumerate(features)]
        weights = _solve(np.column_stack([*columns, target - intercept]), chosen.penalty)
        return make(
            training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors={**scaling.tensors(), "weights": weights * data.scale, "intercept": np.array([intercept * data.scale])},
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        require_layout(artifact, _layout(len(features)))
        scaling, weights = Standardizer.restore(artifact.tensors), artifact.tensors["weights"]
        rows = from_start(frame, start)
        total = np.full(rows.height, float(artifact.tensors["intercept"][0]))
        for position, name in enumerate(features):
            total += scaling.column(position, feature_column(rows, name)) * weights[position]
        return predictions(rows, total, features, start)

    def row_scorer(self, artifact: Artifact) -> RowScorer:
        """The bits of `predict`, without a frame."""
        features = artifact.inputs.features
        require_layout(artifact, _layout(len(features)))
        scaling, weights = Standardizer.restore(artifact.tensors), artifact.tensors["weights"].astype(np.float64)
        intercept = float(artifact.tensors["intercept"][0])
        return LinearScorer((scaling.lower, scaling.upper, scaling.mean, scaling.deviation, weights), intercept)


def _layout(features: int) -> dict[str, tuple[int, ...]]:
    return {**Standardizer.layout(features), "weights": (features,), "intercept": (1,)}


def _solve(rows: Floats, penalty: float) -> Floats:
    """Weights from [X | target].

    The products are summed over blocks so small that BLAS keeps each on one thread: on a busy machine its threads wait for each
    other, and one large product took 80 times as long.
    """
    count, width = rows.shape[0], rows.shape[1] - 1
    moments = np.zeros((width, width + 1))
    step = max(1, _SINGLE_THREADED_PRODUCT // (width * (width + 1)))
    for first in range(0, count, step):
        block = rows[first : first + step]
        moments += block[:, :width].T @ block
    moments /= count
    with one_thread():
        return np.linalg.solve(moments[:, :width] + penalty * np.eye(width), moments[:, width]).astype(np.float64)


ENGINE = Ridge()
