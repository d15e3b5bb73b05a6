"""Momentum: the rule engine. Nothing is learnt but the scale of its answer.

    score = trailing log return over the long window, without the last bars / volatility

The last bars are left out because short-term reversal works against momentum (Jegadeesh, 1990; Jegadeesh and Titman, 1993).
Which columns the return is read from depends on the feature set: see `RULES`. The direction is fixed; how a score becomes an
expected label is told in `scored`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tidemill.models.artifact import Artifact, make
from tidemill.models.base import (
    NO_LINEAGE,
    EngineInfo,
    Floats,
    Lineage,
    RowScorer,
    decoded,
    require_distinct,
    require_scoring,
    training_inputs,
    training_set,
)
from tidemill.models.scored import Rule, ScoredRule, chosen_rule, fitted_scale

_ADVICE = "Add them, for example with the set alpha30 or classic."


class MomentumParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rule has no parameters."""


def _alpha_score(roc_long: Floats, roc_short: Floats, deviation: Floats) -> Floats:
    # ROCn is close[t-n] / close[t], so the return from t-60 to t-5 is ROC5 / ROC60; STD20 is in units of the close.
    return np.log(roc_short / roc_long) / deviation


def _classic_score(rate_of_change: Floats, true_range: Floats) -> Floats:
    # roc_10 and natr_14 are both in percent of the close.
    return rate_of_change / true_range


# In order of preference; the first whose columns are all there is used.
RULES = (
    Rule(("ROC60", "ROC5", "STD20"), _alpha_score),
    Rule(("roc_10", "natr_14"), _classic_score),
)


class Momentum:
    """Expected label from risk-adjusted trailing return."""

    info = EngineInfo(
        name="momentum",
        kind="rule",
        about="risk-adjusted trailing return, the last bars left out",
        needs=tuple(rule.columns for rule in RULES),
        params=MomentumParams,
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
        chosen = decoded(MomentumParams, params, self.info.name)
        require_distinct(features)
        rule = chosen_rule(RULES, features, "Momentum", _ADVICE)
        data = training_set(training, rule.columns)
        return make(
            training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors=fitted_scale(rule, data, "Momentum"),
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        require_scoring(artifact, frame, self.info.name)
        return _scored(artifact).predictions(frame, start)

    def row_scorer(self, artifact: Artifact) -> RowScorer:
        """The bits of `predict`, without a frame."""
        return _scored(artifact).row_scorer()


def _scored(artifact: Artifact) -> ScoredRule:
    return ScoredRule(artifact, chosen_rule(RULES, artifact.inputs.features, "Momentum", _ADVICE))


ENGINE = Momentum()
