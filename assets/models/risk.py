"""The risk engine: volatility and drawdown forecast. It scores risk, so the ensemble of returns leaves it out."""

from typing import Any

import dagster as dg

from assets.models.engines import TRAINING_POOL
from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.steps.models.risk import train_risk
from tidemill.study import code as code_of


@dg.asset(
    key=["models", "risk"],
    group_name="training",
    kinds={"numpy"},
    owners=["team:research"],
    pool=TRAINING_POOL,
    deps=[["market_data", "bars"]],
    code_version=code_of.risk(),
    description="GARCH(1,1) of every symbol, fitted before each fold; EWMA where a fit does not converge.",
)
def risk(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, train_risk(study_for(context, experiment)))
