from datetime import UTC, datetime, timedelta

import dagster as dg

from sensors.schedules import FinishedRun, delete_expired, expired, lineage_runs, retention_job, retention_schedule

NOW = datetime(2024, 5, 3, tzinfo=UTC)
months = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(key=["market_data", "bars"], partitions_def=months)
def bars() -> None: ...


@dg.asset(key=["models", "ridge"])
def ridge() -> None: ...


@dg.asset_check(asset=["models", "ridge"])
def sane() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def test_only_old_runs_that_hold_nothing_newest_expire() -> None:
    runs = [FinishedRun("old", NOW - timedelta(days=31)), FinishedRun("young", NOW - timedelta(days=29))]
    runs.append(FinishedRun("lineage", NOW - timedelta(days=400)))
    assert expired(runs, {"lineage"}, NOW) == ["old"]


def make(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, partition: str | None = None) -> str:
    return dg.materialize([asset], instance=instance, partition_key=partition).run_id


def test_the_newest_materialization_of_each_partition_and_the_verdict_of_a_check_survive() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        make(instance, bars, "a")
        kept = {make(instance, bars, "a"), make(instance, bars, "b")}
        make(instance, ridge)
        verdict = dg.materialize([ridge], instance=instance)
        checked = dg.Definitions(assets=[ridge], asset_checks=[sane], jobs=[dg.define_asset_job("all")]).resolve_job_def("all")
        checked_run = checked.execute_in_process(instance=instance).run_id
        kept.add(make(instance, ridge))
        assert lineage_runs(instance) == kept
        gone = delete_expired(instance, datetime.now(UTC) + timedelta(days=31))
        assert gone == 4
        assert {run.run_id for run in instance.get_runs()} == kept
        assert instance.get_run_by_id(verdict.run_id) is None
        assert instance.get_materialized_partitions(bars.key) == {"a", "b"}
        last = instance.event_log_storage.get_asset_check_execution_history(sane.check_key, limit=1)
        assert [(record.run_id, record.status.value) for record in last] == [(checked_run, "SUCCEEDED")]
        assert delete_expired(instance, datetime.now(UTC) + timedelta(days=31)) == 0


def test_a_run_that_has_not_ended_is_never_deleted() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_run(dg.DagsterRun(job_name="main", status=dg.DagsterRunStatus.STARTED))
        assert delete_expired(instance, datetime.now(UTC) + timedelta(days=400)) == 0


def test_the_job_keeps_what_is_young_and_runs_every_day() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        make(instance, ridge)
        make(instance, ridge)
        assert retention_job.execute_in_process(instance=instance).success
        assert instance.get_runs_count() == 3
        config = dg.RunConfig(ops={"delete_old_runs": {"config": {"days": -1}}})
        assert retention_job.execute_in_process(instance=instance, run_config=config).success
        assert instance.get_runs_count() == 2  # the newest materialization, and the run that deleted
    assert retention_schedule.cron_schedule == "17 3 * * *"
