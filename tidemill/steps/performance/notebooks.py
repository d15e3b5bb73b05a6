"""Notebooks executed on the results of an experiment, by papermill in a process of its own.

A process of its own, because a notebook is a person's code, and because Jupyter's kernel leaves threads behind.
"""

from __future__ import annotations

import os
import subprocess  # nosec B404  # a list of arguments, no shell
import sys
from pathlib import Path

from tidemill.config import Settings
from tidemill.domain.errors import StopError, UnknownNameError
from tidemill.durable import make_folder, replacing, write_file
from tidemill.experiments.files import to_text
from tidemill.provenance import fingerprint
from tidemill.storage.made_from import is_made_from, write_note
from tidemill.study.freshness import FileFacts, StepReport
from tidemill.study.study import Study
from tidemill.study.tables import METRICS

FOLDER = Path(__file__).resolve().parents[3] / "notebooks"
_PATIENCE = 900.0


def notebooks() -> tuple[str, ...]:
    """Names of the notebooks that ship, without their ending; none in an installation without the repository."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))


def executed_folder(settings: Settings) -> Path:
    """Where the executed notebooks of this home lie."""
    return settings.home / "notebooks"


def executed_path(study: Study, name: str) -> Path:
    return executed_folder(study.workspace.settings) / study.key / f"{name}.ipynb"


def execute_notebook(study: Study, name: str) -> StepReport[FileFacts]:
    """Run a notebook on the experiment of `study`; not again while notebook and results are what they were.

    UnknownNameError for another name, StopError with the last line of the failure when a cell fails.
    """
    source = FOLDER / f"{name}.ipynb"
    if name not in notebooks():
        raise UnknownNameError("notebook", name, notebooks())
    metrics = study.part_versions(METRICS, study.key)
    file_fingerprint = fingerprint(source.read_text(encoding="utf-8"), metrics, study.bars_version, study.experiment)
    target = executed_path(study, name)
    stamp = target.with_suffix(".made-from")
    worked = not is_made_from(stamp, file_fingerprint)
    if worked:
        _run(study, source, target)
        write_note(stamp, file_fingerprint, target)
    return StepReport(
        worked=worked,
        bytes=target.stat().st_size,
        data_version=file_fingerprint,
        code_version=fingerprint(source.read_text(encoding="utf-8")),
        facts=FileFacts(path=str(target)),
    )


def _run(study: Study, source: Path, target: Path) -> None:
    make_folder(target.parent)
    experiment = target.parent / "experiment.yaml"
    write_file(experiment, to_text(study.experiment).encode())
    failed = target.with_suffix(".failed.ipynb")
    with replacing(target) as made:
        why = _executed(study, source, made, experiment)
        if why:
            write_file(failed, made.read_bytes())
            raise StopError(f"The notebook {source.stem} {why}. Its cells so far are in {failed}.")
    failed.unlink(missing_ok=True)


def _executed(study: Study, source: Path, made: Path, experiment: Path) -> str:
    """The notebook with what its cells answer goes to `made`; why it did not come to its end, empty when it did."""
    command = [sys.executable, "-m", "papermill", str(source), str(made), "--cwd", str(experiment.parent)]
    command += ["--no-progress-bar", "-p", "experiment", str(experiment)]
    variables = {**os.environ, "TIDEMILL_HOME": str(study.workspace.settings.home)}
    try:
        done = subprocess.run(  # nosec B603
            command, env=variables, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {_PATIENCE:.0f} s"
    if done.returncode == 0:
        return ""
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
    return f"failed: {last.rstrip('.')}"
