"""The model that trades: replaced only by a challenger that earned more on the same bars after the same costs."""

from typing import Any

import dagster as dg

from assets.reporting import result
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.steps.models.champion import consider
from tidemill.strategies.registry import SHIPPED
from tidemill.study import code as code_of


@dg.asset(
    key=["models", "champion"],
    group_name="training",
    kinds={"postgres"},
    owners=["team:research"],
    deps=[["features", "training_set"], ["performance", "portfolio"], ["performance", "drift"]],
    code_version=code_of.challenge(*SHIPPED.values()),
    description="A challenger is trained on the newest window and compared with the champion on bars that neither saw, costs "
    "included. It is promoted when it earned more, is proven causal and every check passed; `tidemill champions undo` "
    "reverts it.",
)
def champion(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, consider(study_for(context, experiment)))
