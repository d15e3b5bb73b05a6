"""Sentiment: a rule over what the news of a symbol said. Nothing is learnt but the scale of its answer.

    score = sentiment_mean + surprise * sentiment_surprise

Good news is followed by drift in its direction (Tetlock, 2007; Chan, 2003), and what differs from the news before by more. The
columns are those of the set `sentiment`, which an experiment has when it names a source of `news`. The direction is fixed; how
a score becomes an expected label is told in `scored`.

Without these columns, or where too few training rows know them, the engine is silent: it predicts nothing, and the ensemble
does without it.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl

from tidemill.models.artifact import Artifact, TrainingInputs, make
from tidemill.models.base import (
    MINIMUM_ROWS,
    NO_LINEAGE,
    EngineInfo,
    Floats,
    Lineage,
    RowScorer,
    decoded,
    from_start,
    known,
    predictions,
    require_distinct,
    require_scoring,
    training_inputs,
    training_set,
)
from tidemill.models.scored import SKILL, Rule, ScoredRule, fitted_scale
from tidemill.provenance import source_version
from tidemill.validation.panel import require_columns, require_panel

COLUMNS = ("sentiment_mean", "sentiment_surprise")
_SILENT = "silent"


class SentimentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """surprise: weight of what is new in the news. skill: information coefficient that the rule claims."""

    surprise: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 1.0
    skill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = SKILL


def _score(mean: Floats, news: Floats, *, surprise: float) -> Floats:
    return mean + surprise * news


def rule(params: SentimentParams) -> Rule:
    return Rule(COLUMNS, partial(_score, surprise=params.surprise))


class Sentiment:
    """Expected label from the news known at the bar; silent without news."""

    info = EngineInfo(
        name="sentiment",
        kind="rule",
        about="what the news of a symbol said and how new it was; silent without news",
        params=SentimentParams,
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
        chosen = decoded(SentimentParams, params, self.info.name)
        require_distinct(features)
        require_panel(training, "training frame")
        require_columns(training, (*features, "label"), "training frame")
        if not set(COLUMNS) <= set(features) or _informed_rows(training) < MINIMUM_ROWS:
            return make(_silent_inputs(features, chosen, seed, lineage), tensors={_SILENT: np.ones(1)})
        data = training_set(training, COLUMNS)
        return make(
            training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors=fitted_scale(rule(chosen), data, "Sentiment", chosen.skill),
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        if is_silent(artifact):
            rows = from_start(frame, start)
            return predictions(rows, np.full(rows.height, np.nan), features, start)
        return self._scored(artifact).predictions(frame, start)

    def row_scorer(self, artifact: Artifact) -> RowScorer:
        """The bits of `predict`, without a frame."""
        if is_silent(artifact):
            return lambda values: np.full(len(values), np.nan)
        return self._scored(artifact).row_scorer()

    def _scored(self, artifact: Artifact) -> ScoredRule:
        return ScoredRule(artifact, rule(decoded(SentimentParams, artifact.inputs.params, self.info.name)))


def is_silent(artifact: Artifact) -> bool:
    """Whether a model of this engine was trained without news and predicts nothing."""
    return set(artifact.tensors) == {_SILENT}


def _informed_rows(training: pl.DataFrame) -> int:
    """Labelled rows whose news is known."""
    both = pl.col("label").is_finite().fill_null(value=False) & known(COLUMNS)
    return int(training.select(both.sum()).item())


def _silent_inputs(features: tuple[str, ...], params: SentimentParams, seed: int, lineage: Lineage) -> TrainingInputs:
    return TrainingInputs(
        engine=Sentiment.info.name,
        features=features,
        feature_fingerprint=lineage.feature_fingerprint,
        code_version=source_version(__name__),
        data_versions=lineage.data_versions,
        label=lineage.label,
        horizon=lineage.horizon,
        split=lineage.split,
        seed=seed,
        params=msgspec.to_builtins(params),
        rows=0,
        start="",
        end="",
    )


ENGINE = Sentiment()
