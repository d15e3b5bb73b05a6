"""Training one engine without the graph, on data brought up to date first."""

from __future__ import annotations

import msgspec

from tidemill.domain.experiment import EngineSpec
from tidemill.steps.models.engines import TrainingFacts, train
from tidemill.steps.upstream import bring_up_to_date
from tidemill.study.freshness import StepReport
from tidemill.study.study import Study


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
