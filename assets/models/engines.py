"""One asset for each engine of a graph, and the ensemble of them."""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from assets.engine_keys import model_keys
from assets.reporting import WORKS, result, works
from assets.upstream import study_for
from resources.experiment import ExperimentResource
from tidemill.models.base import EngineInfo
from tidemill.provenance import source_version
from tidemill.steps.models.engines import train_among
from tidemill.steps.models.ensemble import train_ensemble
from tidemill.study import code as code_of

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
        check_specs=[dg.AssetCheckSpec(WORKS, asset=["models", name], description="The engine can be trained.")],
        description=f"{about[:1].upper()}{about[1:]}. Trained on every walk-forward fold, purged and embargoed.",
    )
    def engine(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> Iterator[Any]:
        study = study_for(context, experiment)
        yield result(context, train_among(study, name))
        yield works({engine: why for engine, why in study.failed.items() if engine == name})

    return engine


def engine_assets(engines: Iterable[EngineInfo]) -> list[dg.AssetsDefinition]:
    """One asset each."""
    return [_engine_asset(info.name, info.about) for info in engines]


def ensemble_asset(engines: Iterable[EngineInfo]) -> dg.AssetsDefinition:
    """The ensemble of these engines."""

    @dg.asset(
        key=["models", "ensemble"],
        group_name="training",
        kinds={"polars"},
        owners=["team:research"],
        deps=[*model_keys(engines), ["predictions", "engines"], ["features", "training_set"]],
        code_version=code_of.ensemble(),
        description="Weights of the engines' ranks: for each fold by the skill that they had shown out of sample before it.",
    )
    def ensemble(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
        return result(context, train_ensemble(study_for(context, experiment)))

    return ensemble
