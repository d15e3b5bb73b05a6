"""Ensemble: weighted mean of the engines' cross-sectional ranks.

Its features are the engines' names and its rows hold their predictions, one column an engine (`wide` makes such a frame). At
each bar time the n symbols that an engine scored get the centred rank, scaled to unit variance:

    z = (rank - (n + 1) / 2) / sqrt((n^2 - 1) / 12)        rank 1 … n, ties averaged; n = 1, or all tied: 0

Ranks, because the engines' predictions differ in scale and tails, and because they are exact for a cross-section of five. The
ensemble is the weighted mean of z over the engines that scored the row, null where fewer than half of them did. It is a score
without unit. Weights are given to it, or equal; how skill makes them is in `steps.models.weighing`.

A row's score depends on the symbols scored at the same time, by its nature, and on nothing else: not on their order, nor on
other times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, TrainingInputs, make
from tidemill.models.base import (
    NO_LINEAGE,
    EngineInfo,
    Floats,
    Lineage,
    RowScorer,
    decoded,
    from_start,
    require_distinct,
    require_layout,
    require_scoring,
)
from tidemill.provenance import source_version
from tidemill.validation.panel import require_columns

# Rounded weights sum to 1 within it.
_TOLERANCE = 1e-9


class EnsembleParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """weights: one for each engine in its order, none negative, 1 in sum. None: equal ones."""

    weights: tuple[Annotated[float, msgspec.Meta(ge=0.0, le=1.0)], ...] | None = None


@dataclass(frozen=True)
class RankScorer:
    """The ensemble of one bar time: predictions [symbols, engines] → [symbols]. weights: of the engines."""

    weights: Floats

    def __call__(self, values: Floats, /) -> Floats:
        from tidemill.models.kernels.ranks import mean_of_ranks

        made = np.empty(len(values))
        mean_of_ranks(values, self.weights, made)
        return made


class Ensemble:
    """Weighted mean of ranks; `fit` needs no rows, since nothing is learnt here."""

    info = EngineInfo(
        name="ensemble",
        kind="ensemble",
        about="weighted mean of the engines' ranks at each bar time",
        params=EnsembleParams,
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
        chosen = decoded(EnsembleParams, params, self.info.name)
        require_distinct(features)
        inputs = TrainingInputs(
            engine=self.info.name,
            features=features,
            feature_fingerprint=lineage.feature_fingerprint,
            code_version=source_version(__name__),
            data_versions=lineage.data_versions,
            label=lineage.label,
            horizon=lineage.horizon,
            split=lineage.split,
            seed=seed,
            params=msgspec.to_builtins(chosen),
            rows=training.height,
            start="",
            end="",
        )
        return make(inputs, tensors={"weights": _weights(chosen, features)})

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        engines = require_scoring(artifact, frame, self.info.name)
        require_layout(artifact, {"weights": (len(engines),)})
        weights = [float(weight) for weight in artifact.tensors["weights"]]
        rows = from_start(frame, start).with_columns(_rank(engine).alias(engine) for engine in engines)
        return rows.select("symbol", "open_time", _weighted_mean(engines, weights).alias("prediction"))

    def row_scorer(self, artifact: Artifact) -> RowScorer:
        """The bits of `predict` for the rows of one bar time, without a frame: predictions [symbols, engines]."""
        require_layout(artifact, {"weights": (len(artifact.inputs.features),)})
        return RankScorer(artifact.tensors["weights"].astype(np.float64))


def _weights(chosen: EnsembleParams, features: tuple[str, ...]) -> Floats:
    if chosen.weights is None:
        return np.full(len(features), 1.0 / len(features))
    if len(chosen.weights) != len(features) or abs(sum(chosen.weights) - 1.0) > _TOLERANCE:
        raise InputError(f"The ensemble of {len(features)} engines needs one weight for each, and their sum must be 1.")
    return np.array(chosen.weights, dtype=np.float64)


def combine(predictions: pl.DataFrame, engines: tuple[str, ...], weights: Sequence[float] = ()) -> pl.DataFrame:
    """Ensemble of `predictions[symbol, open_time, engine, prediction]`: `symbol, open_time, prediction`.

    weights: one for each engine, 1 in sum; equal ones when not given. An engine that is missing altogether counts as one that
    scored nothing.
    """
    ensemble, params = Ensemble(), {"weights": tuple(weights)} if weights else {}
    rows = wide(predictions, engines)
    return ensemble.predict(ensemble.fit(rows, features=engines, params=params, seed=0), rows)


def wide(predictions: pl.DataFrame, engines: tuple[str, ...]) -> pl.DataFrame:
    """One row for each (symbol, open_time), sorted, with a column for each of `engines`; null where it did not score."""
    require_columns(predictions, ("symbol", "open_time", "engine", "prediction"), "predictions frame")
    rows = predictions.select("symbol", "open_time").unique().sort("symbol", "open_time")
    for engine in engines:
        own = predictions.filter(pl.col("engine") == engine)
        if own.select("symbol", "open_time").is_duplicated().any():
            raise InputError(f"The engine {engine} has two predictions for one bar. Keep one fold for each bar time.")
        column = own.select("symbol", "open_time", pl.col("prediction").cast(pl.Float64).alias(engine))
        rows = rows.join(column, on=("symbol", "open_time"), how="left", maintain_order="left")
    return rows


def ranks(predictions: pl.DataFrame, engines: tuple[str, ...]) -> pl.DataFrame:
    """`wide` with each engine's predictions as the centred ranks of which the ensemble is the mean."""
    return wide(predictions, engines).with_columns(_rank(engine).alias(engine) for engine in engines)


def _rank(engine: str) -> pl.Expr:
    finite = pl.when(pl.col(engine).is_finite()).then(pl.col(engine))
    count = finite.count().over("open_time").cast(pl.Float64)
    centred = finite.rank("average").over("open_time") - (count + 1.0) / 2.0
    spread = ((count * count - 1.0) / 12.0).sqrt()
    return pl.when(finite.is_not_null()).then(pl.when(count > 1.0).then(centred / spread).otherwise(0.0))


def _weighted_mean(engines: tuple[str, ...], weights: list[float]) -> pl.Expr:
    """Over the engines present, in their stated order, so that the sum has the same bits everywhere."""
    total, present, count = pl.lit(0.0), pl.lit(0.0), pl.lit(0)
    for engine, weight in zip(engines, weights, strict=True):
        there = pl.col(engine).is_not_null()
        total = total + pl.when(there).then(pl.col(engine) * weight).otherwise(0.0)
        # Not `when(there).then(weight)`: where all are there polars makes one number of that, and divides by its inverse.
        present = present + there.cast(pl.Float64) * weight
        count = count + there.cast(pl.Int32)
    return pl.when((count * 2 >= len(engines)) & (present > 0.0)).then(total / present)


ENGINE = Ensemble()
