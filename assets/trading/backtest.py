"""Signals, and what they would have earned."""

from typing import Any

import dagster as dg

from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.steps import plots
from tidemill.steps.trading.backtest import run_backtests
from tidemill.steps.trading.signals import make_signals
from tidemill.strategies.registry import SHIPPED
from tidemill.study import code as code_of


@dg.asset(
    key=["trading", "signals"],
    group_name="trading",
    kinds={"polars", "parquet", "postgres"},
    owners=["team:trading"],
    deps=[["predictions", "ensemble"], ["predictions", "engines"], ["market_data", "instruments"]],
    code_version=code_of.signals(*SHIPPED.values()),
    description="Target weights of the strategy, known at the close of their bar.",
)
def signals(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, make_signals(study_for(context, experiment)))


@dg.asset(
    key=["trading", "backtest"],
    group_name="trading",
    kinds={"numpy", "parquet"},
    owners=["team:trading"],
    deps=[["trading", "signals"], ["market_data", "bars"]],
    code_version=code_of.backtests(),
    description="Each engine's and the ensemble's signals through the decision kernel: fills at the next open, with fees, "
    "slippage and borrow.",
)
def backtest(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, run_backtests(study), lambda: plots.equity(study))
