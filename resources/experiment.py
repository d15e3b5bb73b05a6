"""The experiment that a run is bound to, and the study that every asset works on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from resources.postgres import PostgresResource
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.experiments.files import checked, experiment_from_text
from tidemill.experiments.tracked import choice, chosen, experiments_of
from tidemill.storage.experiments import StoredExperiment
from tidemill.study.registry import Registry
from tidemill.study.sources import study_of
from tidemill.study.study import Study

# Tags of a run that was not told an experiment: which one it is of, for all of its steps, and its name for the web UI.
CHOICE_TAG, NAME_TAG = "tidemill/experiment_id", "tidemill/experiment"


class ExperimentResource(dg.ConfigurableResource[Any]):
    """`name`: an experiment that was run here, or that ships. `yaml_text`: one as in docs/experiment.schema.json, instead.

    With neither a run is of the experiment that was run last, in a home where nothing was run of the sample's.
    """

    name: str = ""
    yaml_text: str = ""
    postgres: dg.ResourceDependency[PostgresResource]

    _study: Study = PrivateAttr()

    @property
    def study(self) -> Study:
        return self._study

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["ExperimentResource"]:
        workspace = self.postgres.workspace
        known = checked(self._experiment(context), Registry.of(workspace.settings))
        self._study = study_of(workspace, known)
        yield self

    def _experiment(self, context: dg.InitResourceContext) -> Experiment:
        if self.yaml_text and self.name:
            raise InputError(
                "The experiment of a run is given by `name` or by `yaml_text`, not by both. Leave one of them out."
            )
        if self.yaml_text:
            return experiment_from_text(self.yaml_text, "the run's experiment")
        workspace = self.postgres.workspace
        rows = workspace.call(experiments_of, workspace.database, workspace.settings.home)
        return chosen(rows, self._choice(context, rows))

    def _choice(self, context: dg.InitResourceContext, rows: Sequence[StoredExperiment]) -> str:
        """What the run is of. The first step decides it: what is run meanwhile is nothing to the later ones."""
        run = context.instance.get_run_by_id(context.run.run_id) if context.instance and context.run else None
        if run is not None and CHOICE_TAG in run.tags:
            return run.tags[CHOICE_TAG]
        made = choice(rows, self.name)
        name = chosen(rows, made).name
        if run is not None and context.instance is not None:
            context.instance.add_run_tags(run.run_id, {CHOICE_TAG: made, NAME_TAG: name})
        if not self.name and context.log is not None:
            last = f"No experiment was chosen, so this is the one that was run last: {name} ({made})."
            context.log.info(last if rows else "No experiment was chosen and none was run yet, so this is the sample.")
        return made
