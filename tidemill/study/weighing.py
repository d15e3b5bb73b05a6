"""How much weight each engine has in the ensemble of a fold: its skill on bars whose outcome was known before the fold.

For engine e, over the outcomes of earlier test windows that were known at the cut of the fold (its test start less the
embargo), as if nothing had come after it:

    skill_e   = max(mean rank IC, 0)
    n         = bar times with a coefficient, the fewest of any engine, / label horizon          independent label periods
    c         = n / (n + CREDIBILITY)
    weight_e  = (1 - c) / E + c · skill_e / Σ skill                        E engines; 1 / E where no engine has skill

An engine that predicted nothing so far, as one of news without news, is left out while others have shown something: its
weight is 0 and it is none of the E.

Weights are never negative and sum to 1. The shrinkage is Bühlmann's credibility: a mean of n coefficients, each with a spread
of about 0.2, is weighed against a spread of 0.025 among engines' true coefficients, and (0.2 / 0.025)² = 64. Equal weights, to
which everything is shrunk, are hard to beat (Genre, Kenny, Meyler and Timmermann, 2013).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from tidemill.domain.errors import UnknownNameError
from tidemill.metrics.predictions import information_coefficients
from tidemill.study.scoring import scored_rows
from tidemill.study.tables import PREDICTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tidemill.study.study import Study
    from tidemill.validation.splits import Fold

SKILL, EQUAL = "skill", "equal"
CREDIBILITY = 64.0


class Skill(NamedTuple):
    """What an engine had shown before a fold: weight, mean rank IC (None: not seen yet), independent label periods."""

    weight: float
    rank_ic: float | None
    periods: float


def coefficients(rows: pl.DataFrame, cut: datetime) -> pl.Series:
    """Rank ICs of one engine, in order of time, from the outcomes that were known at `cut` and from no other.

    rows: `metrics.predictions.scored` with `label_end_at`. One for each bar time, or for each month where until then there were
    too few symbols to compare across them: that there will be more is not known yet.
    """
    return information_coefficients(rows.filter(pl.col("label_end_at") <= cut))["rank_ic"].drop_nulls()


def skill_weights(known: Mapping[str, pl.Series], horizon: int) -> dict[str, Skill]:
    """Weight of each engine from its `coefficients`; see the module.

    horizon: bars that a label is held. Equal weights where no engine has shown anything yet.
    """
    heard = {name: values for name, values in known.items() if len(values)} or known
    periods = min((len(values) for values in heard.values()), default=0) / horizon
    means = {name: _mean(values) for name, values in heard.items()}
    positive = {name: max(mean or 0.0, 0.0) for name, mean in means.items()}
    total, equal = sum(positive.values()), 1.0 / len(heard)
    credible = periods / (periods + CREDIBILITY) if total > 0.0 else 0.0
    weights = {name: (1.0 - credible) * equal + (credible * positive[name] / total if total > 0.0 else 0.0) for name in heard}
    return {name: Skill(weights.get(name, 0.0), means.get(name), periods) for name in known}


def _mean(values: pl.Series) -> float | None:
    mean = values.mean()
    return float(mean) if isinstance(mean, float) else None


def rounded(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights to 12 digits, so that a sum taken in another order makes no other artifact."""
    return tuple(round(weight, 12) for weight in weights)


def weights_of(study: Study, fold: Fold) -> dict[str, Skill]:
    """Weight of each engine in the ensemble of `fold`, and the skill from which it comes."""
    if study.experiment.ensemble == EQUAL:
        equal = 1.0 / len(study.engines)
        return {spec.name: Skill(equal, None, 0.0) for spec in study.engines}
    for spec in study.engines:
        if not study.lake.manifests(PREDICTIONS, study.engine_key(spec)):
            raise UnknownNameError(
                "prediction", spec.name, hint="Materialize predictions/engines first: the weights need them."
            )
    names = [spec.name for spec in study.engines]
    known = {name: coefficients(scored_rows(study, name), fold.train_end) for name in names}
    return skill_weights(known, study.experiment.label.horizon)
