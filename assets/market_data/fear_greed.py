"""The mood of the crypto market, for experiments that ask for it."""

from typing import Any

import dagster as dg

from assets.reporting import result
from resources.experiment import ExperimentResource
from tidemill.provenance import source_version
from tidemill.steps import plots
from tidemill.steps.market_data.fear_greed import sync_fear_greed


@dg.asset(
    key=["market_data", "fear_greed"],
    group_name="data",
    kinds={"postgres", "parquet", "polars"},
    owners=["team:data"],
    code_version=source_version("tidemill.steps.market_data.fear_greed"),
    description="The Fear & Greed Index day by day, every version of it, each known one day after its stamp. Fetched only for "
    "an experiment that names its source under `features.fear_greed`.",
)
def fear_greed(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = experiment.study
    return result(context, sync_fear_greed(study), lambda: plots.fear_greed(study))
