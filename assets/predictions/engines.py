"""Out-of-sample predictions of each engine and of their ensemble."""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from assets.engine_keys import model_keys
from assets.reporting import WORKS, result, works
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.models.base import EngineInfo
from tidemill.provenance import source_version
from tidemill.steps import plots
from tidemill.steps.models.ensemble import predict_ensemble
from tidemill.steps.predictions.engines import predict
from tidemill.study import code as code_of


def engines_asset(trained: Iterable[EngineInfo]) -> dg.AssetsDefinition:
    """The predictions of these engines."""

    @dg.asset(
        key=["predictions", "engines"],
        group_name="prediction",
        kinds={"polars", "parquet", "postgres"},
        owners=["team:research"],
        deps=[*model_keys(trained), dg.AssetKey(["features", "technical"])],
        code_version=source_version("tidemill.models.registry", own=["tidemill.study.fitting"]),
        check_specs=[dg.AssetCheckSpec(WORKS, asset=["predictions", "engines"], description="Every engine predicts.")],
        description="Predictions of every engine on every fold's test window: out of sample only.",
    )
    def engines(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> Iterator[Any]:
        study = study_for(context, experiment)
        yield result(context, predict(study), lambda: plots.predictions(study))
        yield works(study.failed)

    return engines


@dg.asset(
    key=["predictions", "ensemble"],
    group_name="prediction",
    kinds={"polars", "parquet", "postgres"},
    owners=["team:research"],
    deps=[["predictions", "engines"], ["models", "ensemble"]],
    code_version=code_of.ensemble(),
    description="The engines' predictions combined, fold by fold.",
)
def ensemble(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
    return result(context, predict_ensemble(study_for(context, experiment)))
