"""What a run had to leave out of a user's modules, as sentences for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill.domain.experiment import Experiment

if TYPE_CHECKING:
    from tidemill.study.workspace import Workspace


def left_out(workspace: Workspace, experiment: Experiment) -> tuple[str, ...]:
    """Sentences about functions of the experiment's modules whose features are missing from its last run."""
    if not experiment.modules:
        return ()
    from tidemill.steps.features.technical import left_out_notes
    from tidemill.study.sources import study_of

    study = study_of(workspace, experiment)
    unknown = tuple(f"Left out: {name}. {reason}" for name, reason in study.registry.failed.items())
    return unknown + left_out_notes(study)
