"""`retention`: old runs and their events go, lineage stays.

Dagster's own retention purges ticks only, and deleting a run deletes its materializations. So a run stays as long as it holds
the newest materialization of an asset or of one of its partitions. Verdicts of checks have a table of their own, which stays.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec
from dagster import DagsterInvariantViolationError

KEPT = timedelta(days=30)
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 500


class FinishedRun(msgspec.Struct, frozen=True):
    run_id: str
    ended_at: datetime


def expired(runs: Iterable[FinishedRun], protected: Collection[str], now: datetime, kept: timedelta = KEPT) -> list[str]:
    """Ids of the runs that ended longer ago than `kept` and hold nothing that is still the newest of its kind."""
    return [run.run_id for run in runs if now - run.ended_at > kept and run.run_id not in protected]


def lineage_runs(instance: dg.DagsterInstance) -> set[str]:
    """Ids of the runs that hold the newest materialization of an asset or of one of its partitions."""
    found: set[str] = set()
    for key in instance.all_asset_keys():
        newest = instance.get_latest_materialization_event(key)
        if newest is not None:
            found.add(newest.run_id)
        found.update(_partition_runs(instance, key))
    return found


def _partition_runs(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[str]:
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    ids = sorted(newest.values())
    found: set[str] = set()
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, storage_ids=page), limit=len(page)
        ).records
        found.update(record.run_id for record in records)
    return found


def finished_runs(instance: dg.DagsterInstance, created_before: datetime) -> Iterator[FinishedRun]:
    """Finished runs that were created before then, oldest first."""
    wanted = dg.RunsFilter(statuses=_FINISHED, created_before=created_before)
    cursor: str | None = None
    while records := instance.get_run_records(wanted, limit=_PAGE, ascending=True, cursor=cursor):
        for record in records:
            yield FinishedRun(record.dagster_run.run_id, _ended(record))
        cursor = records[-1].dagster_run.run_id


def _ended(record: dg.RunRecord) -> datetime:
    return datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp


def delete_expired(instance: dg.DagsterInstance, now: datetime, kept: timedelta = KEPT) -> int:
    """Delete what `expired` names, with its events and captured output. Returns how many runs went."""
    gone = expired(list(finished_runs(instance, now - kept)), lineage_runs(instance), now, kept)
    for run_id in gone:
        instance.delete_run(run_id)
        with suppress(DagsterInvariantViolationError):  # a manager that captures nothing
            instance.compute_log_manager.delete_logs(prefix=[run_id])
    return len(gone)


class RetentionConfig(dg.Config):
    """`days`: finished runs younger than this stay, whatever they hold."""

    days: int = KEPT.days


@dg.op(description="Deletes old runs that hold nothing that is still the newest of its kind.")
def delete_old_runs(context: dg.OpExecutionContext, config: RetentionConfig) -> None:
    gone = delete_expired(context.instance, datetime.now(UTC), timedelta(days=config.days))
    context.log.info(f"Deleted {gone} runs that ended more than {config.days} days ago.")


@dg.job(executor_def=dg.in_process_executor, description="Keeps the event log small and the lineage whole.")
def retention() -> None:
    delete_old_runs()


retention_job = retention
retention_schedule = dg.ScheduleDefinition(
    job=retention_job, cron_schedule="17 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING, execution_timezone="UTC"
)
