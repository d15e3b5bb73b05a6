"""Gradient-boosted trees through LightGBM: the engine `lightgbm`.

Trained with `deterministic` and `force_row_wise` on a fixed number of threads, so the same rows give the same trees. The
artifact is LightGBM's own text format, which the library never reads back: its parser trusts what it reads, and scoring rows is
quicker here (`trees/kernel.py`), with the same bits.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, make
from tidemill.models.base import (
    NO_LINEAGE,
    Dimension,
    EngineInfo,
    Lineage,
    TrainingSet,
    decoded,
    feature_column,
    from_start,
    predictions,
    require_scoring,
    training_inputs,
    training_set,
)
from tidemill.models.trees.table import LARGEST

if TYPE_CHECKING:
    from tidemill.models.trees.stream import TreesStream

# One: with two, LightGBM's threads wait for each other at every split, and on a busy machine a fit took five times as long.
_THREADS = 1
# Rows from which bin boundaries are taken. LightGBM's 200,000 double the time of a fit and give the same skill.
_BIN_SAMPLE = 50_000
Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Fraction = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]


class GradientBoostingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Names as in LightGBM. `min_data_in_leaf` None: one part in 100 of the training rows, between 20 and 1,000."""

    trees: Count = 100
    num_leaves: Annotated[int, msgspec.Meta(ge=2, le=1_024)] = 15
    learning_rate: Fraction = 0.05
    feature_fraction: Fraction = 0.5
    bagging_fraction: Fraction = 0.5
    lambda_l2: Annotated[float, msgspec.Meta(ge=0.0)] = 10.0
    max_bin: Annotated[int, msgspec.Meta(ge=3, le=255)] = 63
    min_data_in_leaf: Count | None = None


class GradientBoosting:
    """Expected label from boosted regression trees on raw features; LightGBM handles unknown values itself."""

    info = EngineInfo(
        name="lightgbm",
        kind="trees",
        about="gradient-boosted regression trees (LightGBM, deterministic)",
        params=GradientBoostingParams,
        space=(
            Dimension("trees", 30, 400, log=True, whole=True),
            Dimension("num_leaves", 4, 63, log=True, whole=True),
            Dimension("learning_rate", 0.01, 0.2, log=True),
            Dimension("feature_fraction", 0.2, 1.0),
            Dimension("lambda_l2", 0.1, 1_000.0, log=True),
        ),
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
        import lightgbm

        chosen = decoded(GradientBoostingParams, params, self.info.name)
        data = training_set(training, features)
        matrix = _matrix(data.frame, features)[data.usable]
        _require_variation(matrix)
        rows = lightgbm.Dataset(
            matrix,
            data.target[data.usable] * data.scale,
            feature_name=_column_names(len(features)),
            params=_dataset_params(chosen),
            free_raw_data=True,
        )
        try:
            booster = lightgbm.train(_training_params(chosen, data, seed), rows, num_boost_round=chosen.trees)
        except lightgbm.basic.LightGBMError as exc:
            raise InputError(f"LightGBM cannot learn from this training window: {exc}.") from exc
        return make(
            training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            text=booster.model_to_string(),
            origin={"lightgbm": lightgbm.__version__},
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        rows = from_start(frame, start)
        from tidemill.models.trees.stream import scored

        return predictions(rows, scored(artifact, _matrix(rows, features)), features, start)

    def stream(self, artifact: Artifact, symbols: Sequence[str]) -> "TreesStream":
        """Scoring of bar after bar; see TreesStream."""
        from tidemill.models.trees.stream import TreesStream

        return TreesStream(artifact, symbols)


def _training_params(chosen: GradientBoostingParams, data: TrainingSet, seed: int) -> dict[str, object]:
    least = chosen.min_data_in_leaf
    return {
        "objective": "regression",
        "learning_rate": chosen.learning_rate,
        "num_leaves": chosen.num_leaves,
        "feature_fraction": chosen.feature_fraction,
        "bagging_fraction": chosen.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": chosen.lambda_l2,
        "min_data_in_leaf": max(20, min(1_000, data.rows // 100)) if least is None else least,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": _THREADS,
        "verbosity": -1,
        **_dataset_params(chosen),
    }


def _dataset_params(chosen: GradientBoostingParams) -> dict[str, object]:
    return {
        "max_bin": chosen.max_bin,
        "bin_construct_sample_cnt": _BIN_SAMPLE,
        "verbosity": -1,
        "num_threads": _THREADS,
        "force_row_wise": True,
        "deterministic": True,
    }


def _matrix(frame: pl.DataFrame, features: tuple[str, ...]) -> NDArray[np.float32]:
    made = np.empty((frame.height, len(features)), dtype=np.float32)
    for position, name in enumerate(features):
        made[:, position] = np.clip(feature_column(frame, name), -LARGEST, LARGEST)
    return made


def _require_variation(matrix: NDArray[np.float32]) -> None:
    low, high = np.fmin.reduce(matrix, axis=0), np.fmax.reduce(matrix, axis=0)
    if not (high > low).any():
        raise InputError("Every feature is empty or constant over the training window; nothing can be learnt from them.")


def _column_names(count: int) -> list[str]:
    """Stand-ins: LightGBM refuses some characters, and the manifest holds the real names."""
    return [f"f{position}" for position in range(count)]


ENGINE = GradientBoosting()
