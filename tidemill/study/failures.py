"""Engines that failed: noted in the lake's table `failures`, so that the others go on and whoever reads knows who is missing.

A note stands from the failure until the engine works again; `Study.engines` are those without one. It belongs to the study:
another experiment with the same engine makes its own experience.
"""

from __future__ import annotations

import polars as pl

from tidemill.domain.errors import EngineError
from tidemill.domain.naming import first_of
from tidemill.study.study import Study
from tidemill.study.tables import FAILURES

_NAMED = 12


def note(study: Study, error: EngineError) -> None:
    """From now on the study does without this engine."""
    study.lake.write(FAILURES, study.key, error.engine, pl.DataFrame({"why": [str(error)]}), metadata={"why": str(error)})


def forget(study: Study, engine: str) -> None:
    """The engine takes part again."""
    study.lake.drop(FAILURES, study.key, engine)


def failure_notes(study: Study) -> tuple[str, ...]:
    """Sentences about who is missing and why, and of whom the ensemble then is; empty where nobody is."""
    failed = study.failed
    if not failed:
        return ()
    missing = (f"The engine {name} failed and is missing here: {why}" for name, why in failed.items())
    return (*missing, f"The ensemble is of {first_of([spec.name for spec in study.engines], _NAMED)} alone.")
