"""How an executed notebook comes to lie in a home, and what is left of one that failed."""

import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.study.panels import small_experiment
from tidemill.domain.errors import StopError
from tidemill.steps.performance import notebooks
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    return study_of(workspace, small_experiment(folder))


def put_notebook(folder: Path, text: str) -> Path:
    cells = [{"cell_type": "code", "id": "one", "metadata": {}, "source": text, "outputs": [], "execution_count": None}]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    path = folder / "look.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.finished
def test_two_runs_at_once_do_not_write_into_one_file(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, both = put_notebook(tmp_path, ""), notebooks.executed_path(study, "look"), threading.Barrier(2, timeout=30)

    def execute(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        Path(command[4]).write_text(f"by {threading.get_ident()}")
        both.wait()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(notebooks.subprocess, "run", execute)  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(notebooks._run, study, source, target) for _ in range(2)]:
            done.result()
    assert target.read_text().startswith("by ")
    assert sorted(path.name for path in target.parent.iterdir()) == ["experiment.yaml", "look.ipynb"]


@pytest.mark.finished
def test_of_a_notebook_that_fails_the_cells_so_far_are_kept_until_it_succeeds(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    put_notebook(tmp_path, "print('so far')\nraise ValueError('no figure')")
    target = notebooks.executed_path(study, "look")
    failed = target.with_name("look.failed.ipynb")
    with pytest.raises(StopError, match=rf"look failed: ValueError: no figure\. Its cells so far are in {failed}\."):
        notebooks.execute_notebook(study, "look")
    assert "so far" in failed.read_text()
    assert not target.exists()
    put_notebook(tmp_path, "print('done')")
    assert notebooks.execute_notebook(study, "look").worked
    assert not notebooks.execute_notebook(study, "look").worked
    assert "done" in target.read_text()
    assert sorted(path.name for path in target.parent.iterdir()) == ["experiment.yaml", "look.ipynb", "look.made-from"]
