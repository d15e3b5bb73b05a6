"""How good it was: by engine, as a portfolio, and as a report for people."""

from typing import Any

import dagster as dg

from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.provenance import source_version
from tidemill.steps import plots
from tidemill.steps.performance.report import write_report
from tidemill.steps.performance.skill import evaluate_engines, evaluate_portfolio
from tidemill.study import code as code_of


@dg.asset(
    key=["performance", "engines"],
    group_name="monitoring",
    kinds={"polars"},
    owners=["team:research"],
    deps=[["predictions", "engines"], ["predictions", "ensemble"], ["trading", "backtest"]],
    code_version=code_of.skill(),
    description="Skill of each engine out of sample, and what was left of it after costs.",
)
def engines(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, evaluate_engines(study), lambda: plots.skill(study))


@dg.asset(
    key=["performance", "portfolio"],
    group_name="monitoring",
    kinds={"polars", "postgres"},
    owners=["team:research"],
    deps=[["trading", "backtest"]],
    code_version=code_of.skill(),
    description="Return, risk and cost of the ensemble's portfolio against the benchmark.",
)
def portfolio(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    study = study_for(context, experiment)
    return result(context, evaluate_portfolio(study), lambda: plots.drawdown(study))


@dg.asset(
    key=["performance", "report"],
    group_name="monitoring",
    kinds={"report", "matplotlib"},
    owners=["team:research"],
    deps=[["performance", "engines"], ["performance", "portfolio"], ["market_data", "gaps"]],
    code_version=source_version("tidemill.steps.performance.report"),
    description="One HTML file, readable offline: results, costs, biases of the data and provenance.",
)
def report(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, write_report(study_for(context, experiment)))
