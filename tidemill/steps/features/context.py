"""What features read beside bars, as of the time at which it was known: the Fear & Greed Index, the sentiment of news."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tidemill.features.api import FeatureSet
from tidemill.features.expression import SENTIMENT
from tidemill.steps.features.sentiment import sentiment_prints, with_sentiment
from tidemill.steps.market_data.fear_greed import index_prints, with_index
from tidemill.study.study import Study


def with_context(study: Study, bars: pl.DataFrame, features: FeatureSet) -> pl.DataFrame:
    """The bars, and beside them what some feature reads of the context."""
    made = with_index(study, bars, features)
    return with_sentiment(study, made) if _reads_sentiment(features) else made


def context_prints(study: Study, months: Sequence[str], features: FeatureSet) -> dict[str, tuple[str, ...]]:
    """Month → fingerprints of the context that its bars can know and earlier months could not; empty where none is read.

    months: in order of time.
    """
    index = index_prints(study, months, features)
    sentiment = sentiment_prints(study) if _reads_sentiment(features) else {}
    return {month: tuple(part[month] for part in (index, sentiment) if month in part) for month in months}


def _reads_sentiment(features: FeatureSet) -> bool:
    return any(not feature.expression.inputs.isdisjoint(SENTIMENT) for feature in features.features)
