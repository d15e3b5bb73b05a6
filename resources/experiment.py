"""The experiment that a run is bound to, and the study that every asset works on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from resources.postgres import PostgresResource
from tidemill.domain.experiment import Experiment
from tidemill.experiments.files import SAMPLE, checked, experiment_from_text, load_experiment
from tidemill.study.registry import Registry
from tidemill.study.sources import study_of
from tidemill.study.study import Study


def read_experiment(yaml_text: str, registry: Registry) -> Experiment:
    """The experiment of a run; the sample's when a run was started without one. registry: what its names may mean."""
    if not yaml_text:
        return load_experiment(SAMPLE, registry=registry)
    return checked(experiment_from_text(yaml_text, "the run's experiment"), registry)


class ExperimentResource(dg.ConfigurableResource[Any]):
    """`yaml_text`: an experiment as in docs/experiment.schema.json; empty means the sample's own."""

    yaml_text: str = ""
    postgres: dg.ResourceDependency[PostgresResource]

    _study: Study = PrivateAttr()

    @property
    def study(self) -> Study:
        return self._study

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["ExperimentResource"]:
        workspace = self.postgres.workspace
        self._study = study_of(workspace, read_experiment(self.yaml_text, Registry.of(workspace.settings)))
        yield self
