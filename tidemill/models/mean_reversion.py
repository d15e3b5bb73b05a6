"""Mean reversion: short-term reversal as a rule engine. Nothing is learnt but the scale of its answer.

    z = log return over the last k bars / volatility
    score = -sign(z) * max(|z| - threshold, 0)

What fell over the last days tends to rise over the next, and the other way round (Jegadeesh, 1990; Lehmann, 1990). The return
is measured against the symbol's own volatility: overdone is what is large for this symbol. z is centred and scaled
on training rows before the threshold acts, so the threshold counts standard deviations of z. Which columns the return is read
from depends on the feature set: ROCk and STDn of Alpha158, else roc_k and natr_14 of `classic`. The direction is fixed; how a
score becomes an expected label is told in `scored`.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl

from tidemill.models.artifact import Artifact, make
from tidemill.models.base import (
    NO_LINEAGE,
    Dimension,
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
from tidemill.models.scored import SCORE_LIMIT, SKILL, Rule, ScoredRule, chosen_rule, fitted_scale

_ALPHA_BARS, _CLASSIC_BARS = 5, 10
_ADVICE = "Add them, for example with the set alpha30 or classic."


class MeanReversionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """bars: over which a move is expected to revert; None takes 5, or 10 where only `classic` is at hand.

    volatility_bars: n of STDn, the volatility that the move is measured against. threshold: moves within so many standard
    deviations say nothing. skill: information coefficient that the rule claims; it scales the expected label.
    """

    bars: Annotated[int, msgspec.Meta(ge=1, le=1_000)] | None = None
    volatility_bars: Annotated[int, msgspec.Meta(ge=2, le=1_000)] = 20
    threshold: Annotated[float, msgspec.Meta(ge=0.0, lt=SCORE_LIMIT)] = 0.0
    skill: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = SKILL


def _alpha_score(rate_of_change: Floats, deviation: Floats) -> Floats:
    # ROCk is close[t-k] / close[t], so its logarithm is the return with its sign turned; STDn is in units of the close.
    return np.log(rate_of_change) / deviation


def _classic_score(rate_of_change: Floats, true_range: Floats) -> Floats:
    # roc_k and natr_14 are both in percent of the close.
    return -np.log1p(rate_of_change / 100.0) / (true_range / 100.0)


def rules(params: MeanReversionParams) -> tuple[Rule, ...]:
    """In order of preference; the first whose columns are all there is used."""
    return (
        Rule((f"ROC{params.bars or _ALPHA_BARS}", f"STD{params.volatility_bars}"), _alpha_score),
        Rule((f"roc_{params.bars or _CLASSIC_BARS}", "natr_14"), _classic_score),
    )


def needed(params: MeanReversionParams) -> tuple[tuple[str, ...], ...]:
    """Alternatives of columns, in order of preference."""
    return tuple(rule.columns for rule in rules(params))


class MeanReversion:
    """Expected label from the last bars' return against the symbol's own volatility, the sign turned."""

    info = EngineInfo(
        name="mean_reversion",
        kind="rule",
        about="short-term reversal: the last bars' return against its own volatility, the sign turned",
        needs=needed(MeanReversionParams()),
        needs_by=needed,
        params=MeanReversionParams,
        space=(Dimension("threshold", 0.0, 2.0),),
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
        chosen = decoded(MeanReversionParams, params, self.info.name)
        require_distinct(features)
        rule = chosen_rule(rules(chosen), features, "Mean reversion", _ADVICE)
        data = training_set(training, rule.columns)
        return make(
            training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors=fitted_scale(rule, data, "Mean reversion", chosen.skill),
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        require_scoring(artifact, frame, self.info.name)
        return self._scored(artifact).predictions(frame, start)

    def row_scorer(self, artifact: Artifact) -> RowScorer:
        """The bits of `predict`, without a frame."""
        return self._scored(artifact).row_scorer()

    def _scored(self, artifact: Artifact) -> ScoredRule:
        chosen = decoded(MeanReversionParams, artifact.inputs.params, self.info.name)
        rule = chosen_rule(rules(chosen), artifact.inputs.features, "Mean reversion", _ADVICE)
        return ScoredRule(artifact, rule, partial(_beyond, threshold=chosen.threshold))


def _beyond(standard: Floats, *, threshold: float) -> Floats:
    return np.sign(standard) * np.maximum(np.abs(standard) - threshold, 0.0)


ENGINE = MeanReversion()
