"""Where a study keeps what lies beside the lake."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.domain.reading import read
from tidemill.study.study import Study


def report_path(study: Study) -> Path:
    return study.workspace.settings.home / "reports" / study.key / "report.html"


def stored_experiment(path: Path) -> Experiment:
    """An experiment from the JSON that a run left beside its report. InputError for what does not fit the schema."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as exc:
        raise InputError(f"{path} is not JSON: {exc}. Run the experiment again.") from exc
    return experiment_from(value, str(path))


def experiment_from(value: object, origin: str) -> Experiment:
    """An experiment from plain values; `origin` names them in errors. InputError for what does not fit the schema."""
    try:
        return read(value, Experiment)
    except (InputError, RecursionError) as exc:
        raise InputError(f"{origin} is not an experiment: {exc} The schema is docs/experiment.schema.json.") from exc
