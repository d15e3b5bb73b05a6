"""Features of every bar, and the labels that models learn from."""

from typing import Any

import dagster as dg

from assets.partitions import months, one_run
from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.provenance import source_version
from tidemill.steps import plots
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.technical import compute_features
from tidemill.study import code as code_of


@dg.asset(
    key=["features", "technical"],
    group_name="features",
    kinds={"numpy", "polars", "parquet"},
    owners=["team:research"],
    deps=[["market_data", "bars"], ["market_data", "fear_greed"], ["features", "sentiment"]],
    partitions_def=months,
    backfill_policy=one_run,
    code_version=source_version("tidemill.features.api"),
    description="The experiment's features of every bar, on prices adjusted by what was known at the bar. Batch and streaming "
    "execute one definition and agree to the bit.",
)
def technical(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, compute_features(study), lambda: plots.feature_coverage(study))


@dg.asset(
    key=["features", "training_set"],
    group_name="features",
    kinds={"polars", "parquet"},
    owners=["team:research"],
    deps=[["features", "technical"], ["market_data", "bars"]],
    partitions_def=months,
    backfill_policy=one_run,
    code_version=code_of.labels(),
    description="The label of every bar: the return from the next open over the horizon, with the time at which it is known.",
)
def training_set(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, build_training_set(study), lambda: plots.labels(study))
