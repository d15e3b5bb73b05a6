"""What computes each result of a study, for its code version: a change of anything else makes nothing stale.

Keeping (lake, Postgres, files), reading (queries, sources) and telling (reports, errors of parsers) are no part of a result.
What puts computing together counts by its own text, see `provenance.source_version`.
"""

from __future__ import annotations

from tidemill.provenance import source_version

_WEIGHTS = (
    "tidemill.strategies.registry",
    "tidemill.quality.validity",
    "tidemill.models.ensemble",
    "tidemill.market.adjustments",
)
_LABELS = ("tidemill.validation.labels", "tidemill.validation.custom_labels", "tidemill.market.adjustments")
_FILLS = ("tidemill.backtest.backtest", "tidemill.strategies.benchmark", "tidemill.market.adjustments")
_SKILL = ("tidemill.metrics.predictions", "tidemill.metrics.returns", "tidemill.metrics.bootstrap", "tidemill.calendars")
# Of every causality proof: what puts it together, and the bars that it is made on.
_PROVING = ("tidemill.steps.checks.causality", "tidemill.steps.checks.samples", "tidemill.steps.checks.sample_months")
# What leads from stored bars to the features of a proof.
_FEATURES = (
    "tidemill.steps.features.technical",
    "tidemill.steps.features.context",
    "tidemill.steps.market_data.fear_greed",
    "tidemill.study.context",
    "tidemill.market.fear_greed",
)


def imports() -> str:
    """Of bars, flags and corporate actions from a source."""
    return source_version(
        "tidemill.market.files",
        "tidemill.market.sample",
        "tidemill.market.adjustments",
        "tidemill.market.gaps",
        "tidemill.quality.bars",
        own=["tidemill.steps.market_data.ingest", "tidemill.steps.market_data.bars"],
    )


def labels() -> str:
    """Of the labels."""
    return source_version(*_LABELS, own=["tidemill.study.labelling"])


def rejections() -> str:
    """Of which predictions count."""
    return source_version("tidemill.quality.validity", "tidemill.models.ensemble", own=["tidemill.study.rejections"])


def signals(*strategies: str) -> str:
    """Of target weights. strategies: modules of those that are meant; a strategy has a version of its own beside it."""
    return source_version(*_WEIGHTS, *strategies, own=["tidemill.study.book", "tidemill.study.rejections"])


def backtests() -> str:
    """Of fills, equity and trades."""
    return source_version(*_FILLS, own=["tidemill.study.book", "tidemill.steps.trading.backtest"])


def attribution() -> str:
    """Of who wanted each position, and where profit came from."""
    own = ["tidemill.steps.trading.attribution"]
    return source_version("tidemill.metrics.attribution", "tidemill.models.ensemble", own=own)


def ensemble() -> str:
    """Of the ensemble's weights."""
    own = ["tidemill.study.weighing", "tidemill.study.scoring", "tidemill.study.fitting"]
    return source_version("tidemill.models.ensemble", "tidemill.metrics.predictions", own=own)


def skill() -> str:
    """Of how good predictions and books were."""
    return source_version(
        *_SKILL, own=["tidemill.steps.performance.skill", "tidemill.study.scoring", "tidemill.study.counting"]
    )


def selection() -> str:
    """Of what the number of trials makes of a result."""
    own = ["tidemill.steps.performance.selection", "tidemill.study.counting"]
    return source_version("tidemill.validation.selection", own=own)


def drift() -> str:
    """Of the move of features and the decay of skill."""
    own = ["tidemill.steps.performance.drift", "tidemill.study.scoring"]
    return source_version("tidemill.metrics.drift", "tidemill.metrics.predictions", own=own)


def risk() -> str:
    """Of volatility and drawdown forecasts."""
    return source_version("tidemill.risk.volatility", "tidemill.market.adjustments", own=["tidemill.steps.models.risk"])


def sentiment() -> str:
    """Of scores of news, and how bars know them."""
    return source_version("tidemill.features.sentiment", own=["tidemill.steps.features.sentiment", "tidemill.study.context"])


def challenge(*strategies: str) -> str:
    """Of the comparison of a challenger with the champion. strategies: as for `signals`."""
    own = [
        *("tidemill.study.book", "tidemill.study.rejections", "tidemill.study.weighing", "tidemill.study.fitting"),
        *("tidemill.study.scoring", "tidemill.study.counting", "tidemill.steps.models.champion"),
        *("tidemill.steps.models.comparison", "tidemill.steps.models.walking"),
        *("tidemill.study.scheduled", "tidemill.study.deciders", "tidemill.trading.decider"),
    ]
    chain = ("tidemill.trading.chain", "tidemill.validation.splits")
    return source_version(*_WEIGHTS, *_FILLS, *_SKILL, *chain, *strategies, own=own)


def search() -> str:
    """Of the value of a search's trial, its engine and its book apart."""
    own = ["tidemill.evaluation.search", "tidemill.study.fitting", "tidemill.study.counting"]
    return source_version(*_SKILL, "tidemill.models.inference", "tidemill.validation.splits", own=own)


def feature_proof() -> str:
    """Of the proof that features are causal, and of what joins their inputs; features have a version of their own beside it."""
    return source_version("tidemill.validation.causality.features", "tidemill.market.adjustments", own=[*_PROVING, *_FEATURES])


def prediction_proof() -> str:
    """Of the proof that models and predictions are causal; features and engines have versions of their own beside it."""
    proof = ("tidemill.validation.causality.folds", "tidemill.validation.causality.prove")
    own = [*_PROVING, *_FEATURES, "tidemill.study.labelling", "tidemill.study.fitting"]
    return source_version(*proof, *_LABELS, "tidemill.models.inference", own=own)


def signal_proof() -> str:
    """Of the proof that the ensemble's weights and target weights are causal; a strategy has a version of its own beside it."""
    proof = ("tidemill.validation.causality.folds", "tidemill.validation.causality.prove")
    weights = ("tidemill.strategies.registry", "tidemill.market.adjustments", "tidemill.metrics.predictions")
    own = [*_PROVING, "tidemill.study.weighing", "tidemill.study.scoring", "tidemill.study.book"]
    return source_version(*proof, *weights, own=own)
