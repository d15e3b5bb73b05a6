"""The risk engine: volatility and drawdown forecast. It scores risk, so the ensemble of returns leaves it out."""

from typing import Any

import dagster as dg

from assets.models.engines import TRAINING_POOL
from assets.reporting import result
from resources.experiment import ExperimentResource
from tidemill.steps.models.risk import forecast_risk, train_risk
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
    return result(context, train_risk(experiment.study))


@dg.asset(
    key=["predictions", "risk"],
    group_name="prediction",
    kinds={"numpy", "parquet"},
    owners=["team:research"],
    deps=[["models", "risk"], ["market_data", "bars"]],
    code_version=code_of.risk(),
    description="Volatility and expected drawdown of every symbol and bar of the test windows, held against what came true.",
)
def risk_forecasts(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, forecast_risk(experiment.study))
