"""Whether the present still looks like what the models were trained on."""

from typing import Any

import dagster as dg

from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.steps.performance.drift import measure_drift
from tidemill.study import code as code_of


@dg.asset(
    key=["performance", "drift"],
    group_name="monitoring",
    kinds={"polars"},
    owners=["team:research"],
    deps=[["features", "technical"], ["features", "training_set"], ["predictions", "ensemble"]],
    code_version=code_of.drift(),
    description="Population stability of every feature against its training window, and the decay of the ensemble's rank IC.",
)
def drift(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, measure_drift(study_for(context, experiment)))
