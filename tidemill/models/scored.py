"""What the rule engines share: a score that nothing is learnt of but its scale.

    prediction = skill * deviation of the label * clip((score - mean) / deviation of the score, ±3)

Mean and deviations come from training rows. `skill` is the information coefficient that a rule claims for itself; it only
scales the expected label.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, Tensor
from tidemill.models.base import (
    Floats,
    RowScorer,
    TrainingSet,
    feature_column,
    from_start,
    known_rows,
    predictions,
    require_layout,
)

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


def score_of(rule: Rule, columns: Iterable[Floats]) -> Floats:
    """NaN where a column is unknown or a ratio is undefined."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        score = rule.score(*columns)
    return np.where(np.isfinite(score), score, np.nan)


def _columns(rule: Rule, frame: pl.DataFrame) -> Iterator[Floats]:
    return (feature_column(frame, name) for name in rule.columns)


def fitted_scale(rule: Rule, data: TrainingSet, engine: str, skill: float = SKILL) -> dict[str, Tensor]:
    """The tensors of a rule engine. InputError when its columns are never known together."""
    score = score_of(rule, _columns(rule, data.frame))[data.usable]
    known = score[np.isfinite(score)]
    if known.size == 0:
        raise InputError(f"{engine} needs {', '.join(rule.columns)}, and they are never known together in the training window.")
    deviation = float(known.std())
    return {
        "mean": np.array([known.mean()]),
        "deviation": np.array([deviation if deviation > 0.0 else 1.0]),
        "scale": np.array([skill * data.scale * data.target[data.usable].std()]),
    }


class ScoredRule(NamedTuple):
    """A rule of an artifact. shape: bends the standardised score, clipped at ±3, before it is scaled."""

    artifact: Artifact
    rule: Rule
    shape: Callable[[Floats], Floats] = lambda standard: standard

    def predictions(self, frame: pl.DataFrame, start: datetime | None) -> pl.DataFrame:
        """The answer of `predict`."""
        rows = from_start(frame, start)
        return predictions(rows, self._scaling()(_columns(self.rule, rows)), self.artifact.inputs.features, start)

    def row_scorer(self) -> RowScorer:
        """The bits of `predictions`, without a frame."""
        scaled, features = self._scaling(), self.artifact.inputs.features
        places = [features.index(name) for name in self.rule.columns]

        def score(values: Floats) -> Floats:
            own = values[:, places]
            made = scaled(np.where(np.isfinite(own), own, np.nan).T)
            return np.where(known_rows(values) & np.isfinite(made), made, np.nan)

        return score

    def _scaling(self) -> Callable[[Iterable[Floats]], Floats]:
        """Columns of the rule → predictions."""
        require_layout(self.artifact, dict.fromkeys(_TENSORS, (1,)))
        mean, deviation, scale = (float(self.artifact.tensors[name][0]) for name in _TENSORS)

        def scaled(columns: Iterable[Floats]) -> Floats:
            standard = np.clip((score_of(self.rule, columns) - mean) / deviation, -SCORE_LIMIT, SCORE_LIMIT)
            return self.shape(standard) * scale

        return scaled
