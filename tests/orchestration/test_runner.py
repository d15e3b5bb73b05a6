import io
import os
import subprocess
import sys

import pytest
import yaml
from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.launcher.base import WorkerStatus

from orchestration.launcher import PROCESS_TAG, LocalRunLauncher, this_process
from orchestration.progress import Progress
from orchestration.runner import DagsterOrchestrator
from tests.orchestration.conftest import SMALL
from tidemill.config import Settings
from tidemill.domain.errors import ConfigError
from tidemill.domain.experiment import DatasetSpec, Experiment
from tidemill.domain.ports import RunOutcome

EXPERIMENT = Experiment(name="small", dataset=DatasetSpec())


@pytest.fixture
def orchestrator(settings: Settings) -> DagsterOrchestrator:
    return DagsterOrchestrator(settings, module=SMALL)


def run(orchestrator: DagsterOrchestrator, settings: Settings) -> RunOutcome:
    return orchestrator.run(EXPERIMENT, home=settings.home)


def test_a_range_of_months_is_one_run_with_one_materialization_a_month(
    orchestrator: DagsterOrchestrator, settings: Settings, opened: DagsterInstance
) -> None:
    outcome = run(orchestrator, settings)
    assert outcome.succeeded, outcome.failure
    assert [(name, worked) for name, _, worked in outcome.steps] == [
        ("market_data/bars", True),  # one of its months worked
        ("features/technical", False),
        ("models/ridge", True),
    ]
    assert all(seconds > 0 for _, seconds, _ in outcome.steps)
    assert [(name, passed) for name, _, passed in outcome.checks] == [("market_data/bars:complete", True)]
    months = {"2021-01", "2021-02", "2021-03", "2021-04"}
    assert opened.get_materialized_partitions(AssetKey(["features", "technical"])) == months
    recorded = opened.get_run_by_id(outcome.run_id)
    assert recorded is not None
    assert recorded.status is DagsterRunStatus.SUCCESS
    told = yaml.safe_load(recorded.run_config["resources"]["experiment"]["config"]["yaml_text"])
    assert told["name"] == "small"


def test_a_run_plans_one_event_for_each_asset_whatever_its_months(
    orchestrator: DagsterOrchestrator, settings: Settings, opened: DagsterInstance
) -> None:
    outcome = run(orchestrator, settings)
    planned = opened.all_logs(outcome.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    assert len(planned) == 3


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        ("own error", "The file is empty. Give another one."),
        ("foreign error", "models/ridge failed: KeyError: 'close'. Run again with --debug for the traceback."),
        ("incomplete", "The check market_data/bars:complete failed: 2 bars are missing."),
    ],
)
def test_a_failed_run_is_an_outcome_with_one_sentence(
    orchestrator: DagsterOrchestrator, settings: Settings, monkeypatch: pytest.MonkeyPatch, behaviour: str, sentence: str
) -> None:
    monkeypatch.setenv("BEHAVIOUR", behaviour)
    outcome = run(orchestrator, settings)
    assert not outcome.succeeded
    assert outcome.failure == sentence


def test_a_failed_blocking_check_stops_what_is_downstream(
    orchestrator: DagsterOrchestrator, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEHAVIOUR", "incomplete")
    outcome = run(orchestrator, settings)
    assert [name for name, _, _ in outcome.steps] == ["market_data/bars"]
    assert [(name, passed) for name, _, passed in outcome.checks] == [("market_data/bars:complete", False)]


def test_an_interrupted_run_ends_as_canceled(
    orchestrator: DagsterOrchestrator, settings: Settings, opened: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEHAVIOUR", "interrupted")
    with pytest.raises(KeyboardInterrupt):
        run(orchestrator, settings)
    assert [each.status for each in opened.get_runs()] == [DagsterRunStatus.CANCELED]


def test_a_run_writes_nothing_to_the_terminal(
    orchestrator: DagsterOrchestrator, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    run(orchestrator, settings)
    assert capfd.readouterr() == ("", "")


def test_a_module_without_the_job_is_said_in_a_sentence(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="no `defs`"):
        DagsterOrchestrator(settings, module="json").run(EXPERIMENT, home=settings.home)


def test_a_dagster_command_runs_on_the_instance_of_this_home(
    orchestrator: DagsterOrchestrator, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    assert orchestrator.command(["instance", "info"]) == 0
    out, _ = capfd.readouterr()
    assert str(settings.home / "dagster") in out
    assert "LocalRunLauncher" in out
    assert orchestrator.command(["no-such-command"]) == 2


def test_the_health_of_a_run_in_this_process_is_that_of_the_process(opened: DagsterInstance) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    launcher = opened.run_launcher
    assert isinstance(launcher, LocalRunLauncher)
    health = {
        "this": launcher.check_run_worker_health(DagsterRun(job_name="main", tags={PROCESS_TAG: this_process()})).status,
        "ended": launcher.check_run_worker_health(DagsterRun(job_name="main", tags={PROCESS_TAG: f"{ended.pid}@1.00"})).status,
        "pid used again": launcher.check_run_worker_health(
            DagsterRun(job_name="main", tags={PROCESS_TAG: f"{os.getpid()}@1.00"})
        ).status,
    }
    assert health == {"this": WorkerStatus.RUNNING, "ended": WorkerStatus.NOT_FOUND, "pid used again": WorkerStatus.NOT_FOUND}


def test_a_launched_run_without_a_code_server_is_not_found(opened: DagsterInstance) -> None:
    run_id = opened.add_run(DagsterRun(job_name="main", status=DagsterRunStatus.STARTED)).run_id
    recorded = opened.get_run_by_id(run_id)
    assert recorded is not None
    assert opened.run_launcher.check_run_worker_health(recorded).status is WorkerStatus.NOT_FOUND
    assert not opened.run_launcher.terminate(run_id)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_each_step_on_a_terminal_and_nothing_elsewhere(
    orchestrator: DagsterOrchestrator, settings: Settings, opened: DagsterInstance
) -> None:
    outcome = run(orchestrator, settings)
    events = [entry.dagster_event for entry in opened.all_logs(outcome.run_id) if entry.dagster_event]
    watched, file = Terminal(), io.StringIO()
    for stream in (watched, file):
        with Progress(stream, clock=iter(range(100)).__next__) as progress:
            for event in events:
                progress.show(event)
    assert "market_data/bars" in watched.getvalue()
    assert "1.0 s" in watched.getvalue()
    assert file.getvalue() == ""
