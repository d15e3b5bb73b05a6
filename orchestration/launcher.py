"""Dagster's run launcher, told about the runs that it did not launch.

`tidemill run` executes in the caller's process. Such a run carries the process as a tag, so that run monitoring sees whether it
still lives and the web UI's "Terminate" reaches it. A launched run is asked for at its code server; with that it is gone.
"""

import os
import signal

import psutil
from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

PROCESS_TAG = "tidemill/process"


def this_process() -> str:
    """Value of the process tag: pid and start time, since a pid alone is used again."""
    return _identity(psutil.Process())


def _identity(process: psutil.Process) -> str:
    return f"{process.pid}@{process.create_time():.2f}"


def process_lives(tag: str) -> bool:
    """Whether the process that `tag` names still runs."""
    pid = tag.partition("@")[0]
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and _identity(process) == tag
    except (ValueError, psutil.Error):
        return False


class LocalRunLauncher(DefaultRunLauncher):
    """Launches as Dagster does; knows the health of every run of this machine."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        process = run.tags.get(PROCESS_TAG)
        alive = self._code_server_runs(run) if process is None else process_lives(process)
        if alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The process of this run is gone.")

    def _code_server_runs(self, run: DagsterRun) -> bool:
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]  # Dagster's, without annotations
        if client is None:
            return False
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=5)
        except DagsterUserCodeUnreachableError:
            return False
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run as ctrl-C would. False when it is over or its process is gone."""
        run = self._instance.get_run_by_id(run_id)
        process = run.tags.get(PROCESS_TAG) if run else None
        if run is None or process is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]  # as above
        if run.is_finished or not process_lives(process):
            return False
        self._instance.report_run_canceling(run)
        os.kill(int(process.partition("@")[0]), signal.SIGINT)
        return True
