"""Forecasts of the risk engine."""

from typing import Any

import dagster as dg

from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.steps.models.risk import forecast_risk
from tidemill.study import code as code_of


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
    return result(context, forecast_risk(study_for(context, experiment)))
