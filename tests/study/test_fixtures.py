"""Tests that begin with a finished run find it whole, whatever the one before them did to it."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import day_of, small_experiment
from tests.study.running import STEPS, run, worked
from tidemill.queries.trials import list_trials
from tidemill.study.workspace import Workspace


@pytest.mark.finished
@pytest.mark.parametrize("turn", [1, 2])
def test_a_finished_run_leaves_no_work_whatever_an_earlier_test_did(
    workspace: Workspace, folder: Path, panel: pl.DataFrame, turn: int
) -> None:
    experiment = small_experiment(folder)
    assert worked(run(workspace, experiment)[1]) == set()
    assert workspace.call(list_trials, workspace.database).height == 3
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    shutil.rmtree(workspace.settings.home / "models")
    assert worked(run(workspace, experiment)[1]) == set(STEPS) - {"instruments", "gaps"}
    assert workspace.call(list_trials, workspace.database).height == 6


def test_any_other_test_begins_with_nothing_but_a_panel(workspace: Workspace, folder: Path) -> None:
    assert not workspace.settings.home.exists()
    assert workspace.call(list_trials, workspace.database).is_empty()
    assert [path.name for path in folder.iterdir()] == ["base.parquet"]
