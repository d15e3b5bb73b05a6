"""Where a study keeps what lies beside the lake."""

from __future__ import annotations

from pathlib import Path

from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.domain.reading import read
from tidemill.storage.made_from import read_made
from tidemill.study.study import Study

# Beside the report: the experiment that it is of, and what all of it was made from.
EXPERIMENT, MADE_FROM = "experiment.json", "made-from.txt"


def reports_in(settings: Settings) -> Path:
    """The folder of all reports of a home, one folder in it for each study."""
    return settings.home / "reports"


def report_in(settings: Settings, key: str) -> Path:
    """Where the report of a study lies. key: of the study."""
    return reports_in(settings) / key / "report.html"


def report_path(study: Study) -> Path:
    return report_in(study.workspace.settings, study.key)


def stored_experiment(path: Path) -> Experiment:
    """An experiment from the JSON that a run left beside its report.

    IntegrityError when it is not what was written, InputError for what does not fit the schema any more.
    """
    return experiment_from(read_made(path.with_name(MADE_FROM), path, dict), str(path))


def experiment_from(value: object, origin: str) -> Experiment:
    """An experiment from plain values; `origin` names them in errors. InputError for what does not fit the schema."""
    try:
        return read(value, Experiment)
    except (InputError, RecursionError) as exc:
        raise InputError(f"{origin} is not an experiment: {exc} The schema is docs/experiment.schema.json.") from exc
