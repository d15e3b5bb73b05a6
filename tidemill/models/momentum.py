"""Momentum: the rule engine. Nothing is learnt but the scale of its answer.

    score = trailing log return over the long window, without the last bars / volatility
    prediction = SKILL * deviation of the label * clip((score - mean) / deviation of the score, ±3)

The last bars are left out because short-term reversal works against momentum (Jegadeesh, 1990; Jegadeesh and Titman, 1993).
Which columns the return is read from depends on the feature set: see `RULES`. The direction is fixed; mean and deviations
come from training rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, make
from tidemill.models.base import (
    NO_LINEAGE,
    EngineInfo,
    Floats,
    Lineage,
    decoded,
    feature_column,
    from_start,
    inputs_of,
    predictions,
    require_distinct,
    require_layout,
    require_scoring,
    training_set,
)

# Information coefficient that the rule claims for itself; it only scales the expected label.
SKILL = 0.02
_SCORE_LIMIT = 3.0


class MomentumParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rule has no parameters."""


@dataclass(frozen=True)
class Rule:
    """A score from columns of a feature set."""

    columns: tuple[str, ...]
    score: Callable[..., Floats]


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
        rule = _rule(features)
        data = training_set(training, rule.columns)
        score = _score(rule, data.frame)[data.usable]
        known = score[np.isfinite(score)]
        if known.size == 0:
            raise InputError(
                f"Momentum needs {', '.join(rule.columns)}, and they are never known together in the training window."
            )
        deviation = float(known.std())
        return make(
            inputs_of(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors={
                "mean": np.array([known.mean()]),
                "deviation": np.array([deviation if deviation > 0.0 else 1.0]),
                "scale": np.array([SKILL * data.scale * data.target[data.usable].std()]),
            },
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        require_layout(artifact, {"mean": (1,), "deviation": (1,), "scale": (1,)})
        mean, deviation, scale = (float(artifact.tensors[name][0]) for name in ("mean", "deviation", "scale"))
        rows = from_start(frame, start)
        standard = np.clip((_score(_rule(features), rows) - mean) / deviation, -_SCORE_LIMIT, _SCORE_LIMIT)
        return predictions(rows, standard * scale, features, start)


def _rule(features: tuple[str, ...]) -> Rule:
    for rule in RULES:
        if set(rule.columns) <= set(features):
            return rule
    choices = " or ".join(", ".join(rule.columns) for rule in RULES)
    raise InputError(f"Momentum needs the features {choices}. Add them, for example with the set alpha30 or classic.")


def _score(rule: Rule, frame: pl.DataFrame) -> Floats:
    """NaN where a column is unknown or a ratio is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        score = rule.score(*(feature_column(frame, name) for name in rule.columns))
    return np.where(np.isfinite(score), score, np.nan)


ENGINE = Momentum()
