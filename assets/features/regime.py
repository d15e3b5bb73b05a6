"""In which state of volatility and trend each symbol is."""

from typing import Any

import dagster as dg

from assets.partitions import months, one_run
from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.provenance import source_version
from tidemill.steps import plots
from tidemill.steps.features.regime import compute_regime


@dg.asset(
    key=["features", "regime"],
    group_name="features",
    kinds={"numpy", "polars", "parquet"},
    owners=["team:research"],
    deps=[["market_data", "bars"]],
    partitions_def=months,
    backfill_policy=one_run,
    code_version=source_version("tidemill.features.api", own=["tidemill.steps.features.regime"]),
    description="Volatility and trend states of every bar, among them filtered probabilities of a hidden Markov model fitted "
    "on each symbol's own past, with the fits in force each month. Models see the same when an experiment names the set "
    "`regime`.",
)
def regime(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, compute_regime(study), lambda: plots.regimes(study))
