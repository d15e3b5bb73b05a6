"""What a quality suite looks at: everything once, then what changed, and everything again when the suite itself changed."""

from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import day_of, small_experiment
from tidemill.steps.checks import suites as checking
from tidemill.steps.checks.suites import SuiteResult, judge_suite, standing
from tidemill.steps.market_data.bars import sync_bars
from tidemill.study.sources import study_of
from tidemill.study.workspace import Workspace


def test_a_new_day_is_judged_alone_and_a_changed_suite_judges_all_of_it(
    workspace: Workspace, folder: Path, panel: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged() -> SuiteResult:
        study = study_of(workspace, small_experiment(folder))
        sync_bars(study)
        made = judge_suite(study, "bars", "market_data/bars")
        assert all(result.passed for result in made.results)
        assert standing(study, "bars") == ""
        return made

    assert judged().scope == "everything"
    assert not judged().worked
    day_of(panel, 328).write_parquet(folder / "day.parquet")
    assert judged().scope == "what changed since all was well: 2021-10, 2021-11"
    day_of(panel, 329).write_parquet(folder / "next.parquet")
    monkeypatch.setattr(checking, "source_version", lambda *_: "another suite")
    assert judged().scope == "everything"
