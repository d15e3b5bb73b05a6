"""The order of the steps outside Dagster: what who works without the graph brings up to date first."""

from collections.abc import Callable

import msgspec

from tidemill.domain.experiment import EngineSpec
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.sentiment import compute_sentiment
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars, sync_instruments
from tidemill.steps.market_data.fear_greed import sync_fear_greed
from tidemill.steps.market_data.news import sync_news
from tidemill.steps.models.engines import TrainingFacts, train
from tidemill.study.freshness import StepReport
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


def bring_up_to_date(study: Study) -> None:
    """All that a model of the study is trained on, from the source to the labels; what is up to date costs a look."""
    for step in TRAINING_SET.values():
        step(study)


def train_alone(study: Study, name: str) -> StepReport[TrainingFacts]:
    """Train one engine, one of the experiment's or any other with its defaults, on data brought up to date first.

    Raises UnknownNameError for the engine.
    """
    study.registry.engines.find(name)
    if all(spec.name != name for spec in study.experiment.engines):
        engines = (*study.experiment.engines, EngineSpec(name=name))
        study = Study(study.workspace, msgspec.structs.replace(study.experiment, engines=engines), study.dataset.venue)
    bring_up_to_date(study)
    return train(study, name)
