"""What an experiment says of its features, checked before any work: the names, and that what they read is there."""

from collections.abc import Sequence

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import Experiment
from tidemill.features.api import FeatureSet, feature_set
from tidemill.features.declaration import Features, shipped
from tidemill.features.expression import FEAR_GREED, SENTIMENT


def check(experiment: Experiment, known: Features | None = None) -> None:
    """UnknownNameError or InputError unless every set and feature is known and has what it reads; None: those that ship."""
    known = known or shipped()
    for name in experiment.features.sets:
        if name not in known.sets:
            raise UnknownNameError("feature set", name, known.sets, hint="List single features under features.names.")
    chosen = feature_set(*experiment.features.sets, *experiment.features.names, known=known)
    if experiment.features.fear_greed is None:
        advice = "reads the Fear & Greed Index. Say where it comes from with features.fear_greed: alternative.me or file:PATH"
        _require_unread(chosen, FEAR_GREED, advice)
    if experiment.news is None:
        _require_unread(chosen, SENTIMENT, "reads the news. Say where it comes from with news.source: file:PATH or feed:URL")


def _require_unread(chosen: FeatureSet, columns: Sequence[str], advice: str) -> None:
    for feature in chosen.features:
        if not feature.expression.inputs.isdisjoint(columns):
            raise InputError(f"The feature {feature.name} {advice}.")
