"""A graph of the shape of ours: a partitioned chain, a blocking check, an unpartitioned asset. BEHAVIOUR says what fails."""

import os
import signal
import time
from collections.abc import Collection

import dagster as dg

from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment

months = dg.MonthlyPartitionsDefinition(start_date="2020-01", fmt="%Y-%m")
one_run = dg.BackfillPolicy.single_run()


class ExperimentResource(dg.ConfigurableResource):
    yaml_text: str = ""


def behaviour() -> str:
    return os.environ.get("BEHAVIOUR", "")


@dg.asset(key=["market_data", "bars"], partitions_def=months, backfill_policy=one_run)
def bars(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult:
    for month in context.partition_keys:
        context.add_asset_metadata({"worked": month == "2021-03"}, partition_key=month)
    return dg.MaterializeResult(metadata={"experiment": experiment.yaml_text, "months": len(context.partition_keys)})


@dg.asset_check(asset=["market_data", "bars"], blocking=True)
def complete() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=behaviour() != "incomplete", description="2 bars are missing.")


@dg.asset(key=["features", "technical"], partitions_def=months, backfill_policy=one_run, deps=[["market_data", "bars"]])
def technical() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"worked": False})


@dg.asset(key=["models", "ridge"], deps=[["features", "technical"]])
def ridge() -> dg.MaterializeResult:
    if behaviour() == "own error":
        try:
            raise ZeroDivisionError("detail")
        except ZeroDivisionError as exc:
            raise InputError("The file is empty. Give another one.") from exc
    if behaviour() == "foreign error":
        raise KeyError("close")
    if behaviour() == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    return dg.MaterializeResult(metadata={"worked": True})


@dg.asset(key=["models", "idle"])
def idle_model() -> dg.MaterializeResult:
    return dg.MaterializeResult()


main = dg.define_asset_job("main", selection="*", executor_def=dg.in_process_executor)


@dg.sensor(job=main, default_status=dg.DefaultSensorStatus.STOPPED)
def idle() -> dg.SkipReason:
    return dg.SkipReason("nothing")


defs = dg.Definitions(
    assets=[bars, technical, ridge, idle_model],
    asset_checks=[complete],
    jobs=[main],
    sensors=[idle],
    resources={"experiment": ExperimentResource()},
)


def partition_range(experiment: Experiment, settings: Settings) -> tuple[str, str] | None:
    return "2021-01", "2021-04"


def asset_selection(experiment: Experiment, keys: Collection[dg.AssetKey] = ()) -> list[dg.AssetKey]:
    return [asset.key for asset in (bars, technical, ridge)]
