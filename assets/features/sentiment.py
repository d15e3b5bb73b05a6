"""What the news of each symbol said, bar by bar."""

from typing import Any

import dagster as dg

from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.steps import plots
from tidemill.steps.features.sentiment import compute_sentiment
from tidemill.study import code as code_of


@dg.asset(
    key=["features", "sentiment"],
    group_name="features",
    kinds={"polars", "parquet"},
    owners=["team:research"],
    deps=[["market_data", "bars"], ["market_data", "news"]],
    code_version=code_of.sentiment(),
    description="Decayed mean score, number and surprise of the news of each symbol, as known at each bar's close. The scores "
    "come from a lexicon, or from a classifier on this machine. Models see them when an experiment names a source of `news`.",
)
def sentiment(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, compute_sentiment(study), lambda: plots.sentiment(study))
