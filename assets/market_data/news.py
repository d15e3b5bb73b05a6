"""News, for experiments that name a source of it."""

from typing import Any

import dagster as dg

from assets.reporting import result
from resources.experiment import ExperimentResource
from tidemill.provenance import source_version
from tidemill.steps.market_data.news import sync_news


@dg.asset(
    key=["market_data", "news"],
    group_name="data",
    kinds={"postgres", "parquet", "polars"},
    owners=["team:data"],
    code_version=source_version("tidemill.steps.market_data.news"),
    description="News items from a file or a feed, each stamped with the time at which it was first known; bad rows are in the "
    "quarantine with their reasons. Fetched only for an experiment that names its source under `news`.",
)
def news(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, sync_news(experiment.study))
