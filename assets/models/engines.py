"""One asset for each engine: an engine that is added to the registry appears in the graph by itself.

So does one of a module that was loaded before: those of the settings, and in `tidemill run` those of its experiment.
"""

from typing import Any

import dagster as dg

from assets.reporting import result
from resources.experiment import ExperimentResource
from tidemill.models.registry import engines
from tidemill.provenance import source_version
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import train_ensemble
from tidemill.study import code as code_of
from tidemill.user_modules.adoption import configured

# How many are trained at once, over all runs, is in dagster.yaml: twelve on two cores would need more memory than there is.
TRAINING_POOL = "training"

# Icons of the web UI, for engines that stand on a library with one.
_KINDS = {"gru": "pytorch", "lightgbm": "lightgbm", "transformer": "pytorch"}


def _engine_asset(name: str, about: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=["models", name],
        group_name="training",
        kinds={_KINDS.get(name, "numpy")},
        owners=["team:research"],
        pool=TRAINING_POOL,
        deps=[["features", "technical"], ["features", "training_set"]],
        code_version=source_version("tidemill.models.registry", own=["tidemill.study.fitting"]),
        description=f"{about[:1].upper()}{about[1:]}. Trained on every walk-forward fold, purged and embargoed.",
    )
    def engine(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
        return result(context, train(experiment.study, name))

    return engine


configured()
engine_assets = [_engine_asset(engine.info.name, engine.info.about) for engine in engines() if engine.info.kind != "ensemble"]


@dg.asset(
    key=["models", "ensemble"],
    group_name="training",
    kinds={"polars"},
    owners=["team:research"],
    deps=[*(asset.key for asset in engine_assets), ["predictions", "engines"], ["features", "training_set"]],
    code_version=code_of.ensemble(),
    description="Weights of the engines' ranks: for each fold by the skill that they had shown out of sample before it.",
)
def ensemble(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, train_ensemble(experiment.study))
