"""A run with an engine that fails, as a person sees it in the web UI: the check of its asset, and everything else made."""

from pathlib import Path

import pytest
from dagster import AssetCheckSeverity, AssetKey, DagsterInstance, DagsterRunStatus

from orchestration.runner import DagsterOrchestrator
from tests.assets.test_main_job import evaluations, materializations
from tests.study.panels import daily_bars, small_experiment
from tidemill.config import Settings
from tidemill.domain.experiment import EngineSpec, Experiment
from tidemill.domain.ports import RunOutcome

BOOM = """
def fit(training):
    raise ValueError("no rank")


def predict(model, frame):
    return frame["ROC5"]


engine("boom", fit, predict, about="an engine that fails")
"""


@pytest.fixture(scope="module")
def failing(settings: Settings) -> Experiment:
    folder = settings.home.parent / "failing"
    folder.mkdir()
    daily_bars(300).write_parquet(folder / "bars.parquet")
    module = settings.home.parent / "boom.py"
    module.write_text(BOOM)
    engines = (EngineSpec(name="momentum"), EngineSpec(name="boom"))
    return small_experiment(folder, name="failing", engines=engines, modules=(str(module),))


@pytest.fixture(scope="module")
def partial(settings: Settings, failing: Experiment) -> RunOutcome:
    return DagsterOrchestrator(settings).run(failing, home=settings.home)


def test_its_check_fails_with_the_reason_and_all_others_are_made(partial: RunOutcome, opened: DagsterInstance) -> None:
    assert partial.succeeded, partial.failure
    found = {(item.asset_key.to_user_string(), item.check_name): item for item in evaluations(opened, partial)}
    failed = {key for key, item in found.items() if not item.passed and item.severity is AssetCheckSeverity.ERROR}
    assert failed == {("models/boom", "works"), ("predictions/engines", "works")}
    assert "boom failed: fit of the engine boom of boom.py failed on line 3: ValueError: no rank" in str(
        found["models/boom", "works"].description
    )
    assert "no rank" in str(found["predictions/engines", "works"].description)
    assert not found["models/boom", "works"].blocking
    made = materializations(opened, partial)
    assert {"models/momentum", "models/ensemble", "trading/backtest", "performance/report"} <= set(made)
    assert Path(str(made["performance/report"].metadata["path"].value)).is_file()


def test_the_run_goes_to_its_end_and_what_failed_has_no_data_version(partial: RunOutcome, opened: DagsterInstance) -> None:
    assert materializations(opened, partial)["models/boom"].tags["dagster/data_version"] == "failed"
    recorded = opened.get_run_by_id(partial.run_id)
    assert recorded is not None
    assert recorded.status is DagsterRunStatus.SUCCESS
    assert opened.get_latest_materialization_event(AssetKey(["models", "momentum"])) is not None
