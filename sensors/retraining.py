"""`retraining`: drift, a fall of skill, enough new bars or no champion at all lead to a challenger; so does a schedule.

Both are off until somebody switches them on: a promotion decides what will trade.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress

import dagster as dg
import msgspec
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from orchestration.run_request import experiment_config, run_tags
from sensors.experiments import experiments_in
from tidemill.config import Settings, load_settings
from tidemill.domain.errors import TidemillError
from tidemill.domain.experiment import Experiment
from tidemill.experiments.tracked import in_force
from tidemill.steps.performance.drift import Drift, last_drift, reasons
from tidemill.storage.lake import Lake
from tidemill.study.registry import Registry
from tidemill.study.sources import venue_of
from tidemill.study.study import study_key

WHY = "tidemill/why"

Job = dg.JobDefinition | UnresolvedAssetJobDefinition


class Candidate(msgspec.Struct, frozen=True):
    """An experiment that was run, and the drift that was measured in its newest run."""

    experiment: Experiment
    drift: Drift

    @property
    def name(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self.experiment)).hexdigest()[:16]


class Challenge(msgspec.Struct, frozen=True):
    """A run to ask for. The same measurement always has the same `run_key`, so that Dagster runs it once."""

    run_key: str
    experiment: Experiment
    why: tuple[str, ...]


def decide(cursor: str | None, candidates: Sequence[Candidate]) -> tuple[list[Challenge], str]:
    """Which challengers the measurements call for, and the cursor that remembers the measurement of each experiment."""
    before = msgspec.json.decode(cursor, type=dict[str, str]) if cursor else {}
    wanted, seen = [], dict(before)
    for candidate in candidates:
        why = reasons(candidate.drift, candidate.experiment.promotion)
        if why and before.get(candidate.name) != candidate.drift.until:
            wanted.append(Challenge(f"challenge:{candidate.name}:{candidate.drift.until}", candidate.experiment, why))
            seen[candidate.name] = candidate.drift.until
    return wanted, msgspec.json.encode(seen).decode()


def candidates(experiments: Sequence[Experiment], settings: Settings) -> list[Candidate]:
    """Those that may be promoted, whose drift was measured, and whose source is still there: one that vanished must not stop
    the others, and one without limits would be refused each time.
    """
    lake, found = Lake(settings.lake), []
    for experiment in (one for one in experiments if one.limited is not None):
        drift = None
        with suppress(TidemillError):
            registry = Registry.of(settings).with_files(experiment.modules)
            known = registry.known(experiment)
            drift = last_drift(lake, study_key(known, venue_of(experiment.dataset, settings), registry))
        if drift is not None:
            found.append(Candidate(experiment, drift))
    return found


def _found(settings: Settings) -> list[Candidate]:
    return candidates(in_force(experiments_in(settings)), settings)


def _request(experiment: Experiment, run_key: str | None, why: Sequence[str]) -> dg.RunRequest:
    tags: Mapping[str, str] = {**run_tags(experiment, None), WHY: ", ".join(why)}
    return dg.RunRequest(run_key=run_key, run_config=experiment_config(experiment), tags=dict(tags))


def retraining_sensor(job: Job) -> dg.SensorDefinition:
    """The sensor for `job`, which materializes models/champion."""

    @dg.sensor(
        name="retraining",
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Trains a challenger when features drift, skill falls, enough bars are new or there is no champion.",
    )
    def retraining(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found = _found(load_settings())
        wanted, cursor = decide(context.cursor, found)
        requests = [_request(item.experiment, item.run_key, item.why) for item in wanted]
        return dg.SensorResult(
            run_requests=requests, cursor=cursor, skip_reason=None if requests else dg.SkipReason("No reason to retrain.")
        )

    return retraining


def retraining_schedule(job: Job) -> dg.ScheduleDefinition:
    """A challenger every week, whatever was measured."""

    @dg.schedule(
        name="weekly_retraining",
        job=job,
        cron_schedule="41 4 * * 6",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="A challenger for every experiment that was run, once a week.",
    )
    def weekly_retraining(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
        found = _found(load_settings())
        return [_request(item.experiment, f"weekly:{item.name}:{item.drift.until}", ["weekly"]) for item in found]

    return weekly_retraining
