"""Dagster behind the port of `tidemill.domain.ports`: the main job in this process, any command, everything at once."""

import importlib
import logging
import subprocess  # nosec B404  # starts Dagster's own command line, never a shell
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import msgspec
from dagster import AssetKey, BetaWarning, DagsterInstance, DagsterRun, DagsterRunStatus, PreviewWarning, RunsFilter
from dagster._core.code_pointer import CodePointer, CustomPointer, ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import execute_run_iterator
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from orchestration.code_server import LOCATION
from orchestration.instance import PROJECT, environment, instance, prepare_home
from orchestration.launcher import PROCESS_TAG, this_process
from orchestration.outcome import Record, was_interrupted
from orchestration.pools import free_places_of_the_dead
from orchestration.progress import Progress
from orchestration.run_request import experiment_config, run_tags
from tidemill.config import Settings, load_settings
from tidemill.domain.errors import ConfigError
from tidemill.domain.experiment import Experiment
from tidemill.domain.ports import RunOutcome
from tidemill.embedded import servers
from tidemill.study.registry import Registry

MAIN_JOB = "main"


class DagsterOrchestrator:
    """The orchestrator that the entry point `tidemill.orchestrator` names.

    settings: those in force when left out. module: holds `defs` and, if needed, `partition_range(experiment, settings)`, which
    returns the first and last month of a run, `asset_selection(experiment, keys)`, which returns those of all keys that a run
    makes, and `graph(**engines)`, which returns definitions with engines of an experiment's own files (name → what it is).
    """

    def __init__(self, settings: Settings | None = None, module: str = "definitions") -> None:
        self._settings = settings or load_settings()
        self._module = module

    def run(self, experiment: Experiment, *, home: Path) -> RunOutcome:
        """Materialize the main job for one experiment, in this process, as a run that the web UI shows.

        A failed run is an outcome, not an exception. Raises ConfigError when the definitions lack the job, UnavailableError
        when Postgres does not answer, KeyboardInterrupt after an interrupted run was recorded as canceled.
        """
        settings = msgspec.structs.replace(self._settings, home=home)
        with servers(settings) as found, instance(settings, found, flushed=False) as opened, _quiet(settings):
            free_places_of_the_dead(opened)
            job = self._main_job(experiment, settings)
            run = self._create_run(opened, job, experiment, settings)
            return _execute(opened, job, run)

    def command(self, arguments: Sequence[str]) -> int:
        """Any `dagster …` command in the environment of this home. Returns its exit code; ctrl-C is the command's to handle.

        Of a run that failed in it the last line says in a sentence why: Dagster tells it in the midst of its traces.
        """
        began = datetime.now(UTC)
        with servers(self._settings) as found:
            prepare_home(self._settings)
            command = [sys.executable, "-m", "dagster", *arguments]
            code = _call(command, environment(self._settings, found))
            if code == 1:
                with instance(self._settings, found) as opened:
                    _say_why(opened, began)
            return code

    def up(self, *, open_browser: bool = False, as_json: bool = False) -> int:
        """Start every service, print the addresses, wait for ctrl-C, stop all of it. Returns the exit code."""
        from orchestration.up import up  # the web stack is of no use to `run`

        with servers(self._settings) as found, instance(self._settings, found) as opened:
            return up(self._settings, opened, module=self._module, open_browser=open_browser, as_json=as_json)

    def _definitions(self) -> ModuleType:
        return importlib.import_module(self._module)

    def _main_job(self, experiment: Experiment, settings: Settings) -> ReconstructableJob:
        module = self._definitions()
        if not hasattr(module, "defs"):
            raise ConfigError(f"The module {self._module} has no `defs`. Define `defs = Definitions(…)` there.")
        repository = ReconstructableRepository(self._pointer(own_engines(experiment, settings)))
        if not repository.get_definition().has_job(MAIN_JOB):
            raise ConfigError(f"The module {self._module} defines no job named {MAIN_JOB!r}. Add it to `defs`.")
        return repository.get_reconstructable_job(MAIN_JOB)

    def _pointer(self, own: Mapping[str, str]) -> CodePointer:
        """Where the definitions are; those with engines of its own are made for an experiment, in whatever process."""
        if not own or not hasattr(self._definitions(), "graph"):
            return ModuleCodePointer(self._module, "defs", str(PROJECT))
        made = ModuleCodePointer(self._module, "graph", str(PROJECT))
        return CustomPointer(made, [], [[name, about] for name, about in own.items()])

    def _partition_range(self, experiment: Experiment, settings: Settings) -> tuple[str, str] | None:
        find: Callable[[Experiment, Settings], tuple[str, str] | None] | None
        find = getattr(self._definitions(), "partition_range", None)
        return find(experiment, settings) if find else None

    def _asset_selection(self, experiment: Experiment, keys: Collection[AssetKey]) -> frozenset[AssetKey] | None:
        select: Callable[[Experiment, Collection[AssetKey]], Iterable[AssetKey]] | None
        select = getattr(self._definitions(), "asset_selection", None)
        return frozenset(select(experiment, keys)) if select else None

    def _create_run(
        self, opened: DagsterInstance, job: ReconstructableJob, experiment: Experiment, settings: Settings
    ) -> DagsterRun:
        definition, keys = job.get_definition(), job.repository.get_definition().asset_graph.get_all_asset_keys()
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), "__repository__")
        months = self._partition_range(experiment, settings)
        return opened.create_run_for_job(
            job_def=definition,
            run_config={**experiment_config(experiment), **_console(settings)},
            tags={**definition.run_tags, **run_tags(experiment, months), PROCESS_TAG: this_process()},
            asset_selection=self._asset_selection(experiment, keys),
            job_code_origin=job.get_python_origin(),
            # The name under which `up` serves the same definitions, so that the web UI links the run to its job.
            remote_job_origin=RemoteJobOrigin(repository, MAIN_JOB),
        )


def own_engines(experiment: Experiment, settings: Settings) -> dict[str, str]:
    """Engine → what it is, of those that the experiment's own files declare and it names."""
    if not experiment.modules:
        return {}
    registry = Registry.of(settings).with_files(experiment.modules)
    own = {name for module in registry.files for name in module.engines}
    return {spec.name: registry.engines.find(spec.name).info.about for spec in experiment.engines if spec.name in own}


def _console(settings: Settings) -> Mapping[str, object]:
    """Dagster's own log lines on the terminal, which are for those who asked for them; the event log has them all."""
    level = "DEBUG" if settings.log_level == "debug" else "CRITICAL"
    return {"loggers": {"console": {"config": {"log_level": level}}}}


def _execute(opened: DagsterInstance, job: ReconstructableJob, run: DagsterRun) -> RunOutcome:
    record = Record()
    interrupted = False
    with Progress() as progress:
        for event in execute_run_iterator(job, run, opened):
            record.add(event)
            progress.show(event)
            if was_interrupted(event) and not _is_canceling(opened, run):
                # Without this Dagster takes ctrl-C for an unexplained failure; with it the run ends as canceled.
                opened.report_run_canceling(run, message="Interrupted at the terminal.")
                interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    finished = opened.get_run_by_id(run.run_id)
    return record.outcome(run.run_id, succeeded=finished is not None and finished.is_success)


def _is_canceling(opened: DagsterInstance, run: DagsterRun) -> bool:
    now = opened.get_run_by_id(run.run_id)
    return now is not None and now.status is DagsterRunStatus.CANCELING


@contextmanager
def _quiet(settings: Settings) -> Iterator[None]:
    """Without Dagster's remarks about its own interfaces, unless they were asked for."""
    logger = logging.getLogger("dagster")
    level = logger.level
    with warnings.catch_warnings():
        if settings.log_level != "debug":
            warnings.simplefilter("ignore", BetaWarning)
            warnings.simplefilter("ignore", PreviewWarning)
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _say_why(opened: DagsterInstance, began: datetime) -> None:
    """Why the newest run failed, of those that failed since then; nothing where none did."""
    wanted = RunsFilter(statuses=[DagsterRunStatus.FAILURE], created_after=began)
    for run in opened.get_runs(wanted, limit=1):
        record = Record()
        for entry in opened.all_logs(run.run_id):
            if entry.dagster_event is not None:
                record.add(entry.dagster_event)
        print(record.outcome(run.run_id, succeeded=False).failure, file=sys.stderr)


def _call(command: Sequence[str], values: Mapping[str, str]) -> int:
    import os

    process = subprocess.Popen(command, env={**os.environ, **values})  # nosec B603  # arguments are a list, no shell
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal sent it to the command too, which ends in its own way
            continue
