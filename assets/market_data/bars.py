"""Instruments, bars and gaps of the dataset that a run is bound to."""

from typing import Any

import dagster as dg

from assets.partitions import months, one_run
from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.provenance import source_version
from tidemill.steps import plots
from tidemill.steps.market_data.bars import list_gaps, sync_bars, sync_instruments


@dg.asset(
    key=["market_data", "bars"],
    group_name="data",
    kinds={"postgres", "parquet", "polars"},
    owners=["team:data"],
    partitions_def=months,
    backfill_policy=one_run,
    code_version=source_version("tidemill.steps.market_data.ingest"),
    description="Closed bars with raw prices, validated; bad rows are in the quarantine with their reasons. Both versions of a "
    "restated bar are kept.",
)
def bars(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, sync_bars(study), lambda: plots.closes(study))


@dg.asset(
    key=["market_data", "instruments"],
    group_name="data",
    kinds={"postgres"},
    owners=["team:data"],
    deps=[["market_data", "bars"]],
    code_version=source_version("tidemill.steps.market_data.bars"),
    description="What can be traded and what its venue allows: short sales, lots, ticks, calendar.",
)
def instruments(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, sync_instruments(study_for(context, experiment)))


@dg.asset(
    key=["market_data", "gaps"],
    group_name="data",
    kinds={"postgres", "polars"},
    owners=["team:data"],
    deps=[["market_data", "bars"]],
    code_version=source_version("tidemill.market.gaps"),
    description="Bars that should exist by the venue's calendar and do not.",
)
def gaps(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, list_gaps(study_for(context, experiment)))
