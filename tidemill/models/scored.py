"""What the rule engines share: a score that nothing is learnt of but its scale.

    prediction = skill * deviation of the label * clip((score - mean) / deviation of the score, ±3)

Mean and deviations come from training rows. `skill` is the information coefficient that a rule claims for itself; it only
scales the expected label.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, Tensor
from tidemill.models.base import Floats, TrainingSet, feature_column, from_start, predictions, require_layout

SKILL = 0.02
SCORE_LIMIT = 3.0
_TENSORS = ("mean", "deviation", "scale")


@dataclass(frozen=True)
class Rule:
    """A score from columns of a feature set; `score` takes their values in order."""

    columns: tuple[str, ...]
    score: Callable[..., Floats]


def chosen_rule(rules: Sequence[Rule], features: tuple[str, ...], engine: str, advice: str) -> Rule:
    """The first of `rules` whose columns are all among `features`; InputError, with `advice`, when there is none."""
    for rule in rules:
        if set(rule.columns) <= set(features):
            return rule
    choices = " or ".join(dict.fromkeys(", ".join(rule.columns) for rule in rules))
    raise InputError(f"{engine} needs the features {choices}. {advice}")


def score_of(rule: Rule, frame: pl.DataFrame) -> Floats:
    """NaN where a column is unknown or a ratio is undefined."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        score = rule.score(*(feature_column(frame, name) for name in rule.columns))
    return np.where(np.isfinite(score), score, np.nan)


def fitted_scale(rule: Rule, data: TrainingSet, engine: str, skill: float = SKILL) -> dict[str, Tensor]:
    """The tensors of a rule engine. InputError when its columns are never known together."""
    score = score_of(rule, data.frame)[data.usable]
    known = score[np.isfinite(score)]
    if known.size == 0:
        raise InputError(f"{engine} needs {', '.join(rule.columns)}, and they are never known together in the training window.")
    deviation = float(known.std())
    return {
        "mean": np.array([known.mean()]),
        "deviation": np.array([deviation if deviation > 0.0 else 1.0]),
        "scale": np.array([skill * data.scale * data.target[data.usable].std()]),
    }


def scored_predictions(
    artifact: Artifact,
    frame: pl.DataFrame,
    rule: Rule,
    start: datetime | None,
    shape: Callable[[Floats], Floats] = lambda standard: standard,
) -> pl.DataFrame:
    """The answer of `predict`; `shape` bends the standardised score, clipped at ±3, before it is scaled."""
    require_layout(artifact, dict.fromkeys(_TENSORS, (1,)))
    mean, deviation, scale = (float(artifact.tensors[name][0]) for name in _TENSORS)
    rows = from_start(frame, start)
    standard = np.clip((score_of(rule, rows) - mean) / deviation, -SCORE_LIMIT, SCORE_LIMIT)
    return predictions(rows, shape(standard) * scale, artifact.inputs.features, start)
