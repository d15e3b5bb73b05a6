"""The order of the steps outside Dagster: what who works without the graph brings up to date first."""

from collections.abc import Callable

from tidemill.domain.experiment import Experiment
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.sentiment import compute_sentiment
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars, sync_instruments
from tidemill.steps.market_data.fear_greed import sync_fear_greed
from tidemill.steps.market_data.news import sync_news
from tidemill.study.study import Study

# Each after what it reads, as the dependencies of the assets have it. A step that an experiment has no use for says so.
TRAINING_SET: dict[str, Callable[[Study], object]] = {
    "market_data/bars": sync_bars,
    "market_data/instruments": sync_instruments,
    "market_data/fear_greed": sync_fear_greed,
    "market_data/news": sync_news,
    "features/sentiment": compute_sentiment,
    "features/technical": compute_features,
    "features/training_set": build_training_set,
}


def bring_up_to_date(study: Study, *, beside: Study | None = None) -> None:
    """All that a model of the study is trained on, from the source to the labels; what is up to date costs a look.

    beside: a study of the same dataset that is up to date. Both stand on its bars, and no source is asked again for what it
    was asked for there.
    """
    asked = set[str]() if beside is None else _asked_for(study.experiment, beside.experiment)
    for name, step in TRAINING_SET.items():
        if name not in asked:
            step(study)


def _asked_for(experiment: Experiment, other: Experiment) -> set[str]:
    """The steps that ask a source for what they asked it for `other`, an experiment on the same dataset."""
    asked = {"market_data/bars", "market_data/instruments"}
    if experiment.features.fear_greed == other.features.fear_greed:
        asked.add("market_data/fear_greed")
    if _news_source(experiment) == _news_source(other):
        asked.add("market_data/news")
    return asked


def _news_source(experiment: Experiment) -> str | None:
    return None if experiment.news is None else experiment.news.source
