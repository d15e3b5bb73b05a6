"""The only wiring point: the six services merged for the local workspace, and what spans or watches all of them.

Each service is a `Definitions` in a module of its own (`assets/*/definitions.py`); `services.yaml` has them as code locations.
`defs` is what `tidemill up` serves.
"""

from collections.abc import Collection

import dagster as dg

from assets.engine_keys import engines_in_force, model_keys
from assets.features.definitions import defs as features
from assets.features.regime import regime
from assets.features.sentiment import sentiment
from assets.market_data.definitions import defs as data
from assets.market_data.fear_greed import fear_greed
from assets.market_data.news import news
from assets.models.champion import champion
from assets.models.definitions import defs as training
from assets.models.definitions import training as training_of
from assets.models.risk import risk
from assets.partitions import FIRST_MONTH
from assets.performance.definitions import defs as monitoring
from assets.performance.notebooks import notebook_assets
from assets.predictions.definitions import defs as prediction
from assets.predictions.definitions import prediction as prediction_of
from assets.predictions.risk import risk_forecasts
from assets.trading.definitions import defs as trading
from sensors.new_data import new_data_sensor
from sensors.retraining import retraining_schedule, retraining_sensor
from sensors.schedules import retention_job, retention_schedule
from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.models.base import EngineInfo
from tidemill.steps.features.regime import names_regimes
from tidemill.steps.market_data.bars import month_range

# One process runs the whole job: the steps share the study, and imports in each step would cost more than the steps.
main = dg.define_asset_job(
    "main",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets(champion, *notebook_assets),
    description="Market data through features, models and predictions to performance, for one experiment.",
    executor_def=dg.in_process_executor,
)


# Apart from the main job: to train a challenger costs as much as a fold of every engine.
retraining = dg.define_asset_job(
    "retraining",
    selection=dg.AssetSelection.assets(champion),
    description="A challenger for the champion of an experiment's dataset; promoted if it earns more after costs.",
    executor_def=dg.in_process_executor,
)

notebooks = dg.define_asset_job(
    "notebooks",
    selection=dg.AssetSelection.assets(*notebook_assets),
    description="The notebooks that ship, executed on the results of an experiment.",
    executor_def=dg.in_process_executor,
)


def partition_range(experiment: Experiment, settings: Settings) -> tuple[str, str]:
    """First and last month of a run, among those that have a partition."""
    first, last = month_range(experiment, settings)
    return max(first, FIRST_MONTH), max(last, FIRST_MONTH)


def asset_selection(experiment: Experiment, keys: Collection[dg.AssetKey] = ()) -> list[dg.AssetKey]:
    """The assets of a run of the main job: all but the champion, and what the experiment does not name.

    That is engines, regimes, risk, the index and news. keys: of the graph, where it is not `defs`.

    InputError for an engine that the graph does not have.
    """
    known = keys or defs.resolve_all_asset_keys()
    wanted = {dg.AssetKey(["models", spec.name]) for spec in experiment.engines}
    strange = wanted - set(known)
    if strange:
        raise InputError(
            f"The asset graph of this process does not have the engine {min(strange).path[-1]}. "
            "Name its file under `modules` in the settings and start again, or use `tidemill run`."
        )
    apart = {champion.key, *(asset.key for asset in notebook_assets)}
    idle = {*apart, *(set(model_keys(engines_in_force())) - wanted)}
    if not names_regimes(experiment):
        idle.add(regime.key)
    if experiment.risk is None:
        idle |= {risk.key, risk_forecasts.key}
    if experiment.features.fear_greed is None:
        idle.add(fear_greed.key)
    if experiment.news is None:
        idle |= {news.key, sentiment.key}
    return [key for key in known if key not in idle]


local = dg.Definitions(
    jobs=[main, retraining, notebooks, retention_job],
    schedules=[retention_schedule, retraining_schedule(retraining)],
    sensors=[new_data_sensor(main, partition_range, asset_selection), retraining_sensor(retraining)],
)


def graph(**own: str) -> dg.Definitions:
    """All services in one workspace. own: engine → what it is, of those that an experiment's own files declare."""
    others = [info for info in engines_in_force() if info.name not in own]
    engines = [*others, *(EngineInfo(name=name, kind="custom", about=about) for name, about in own.items())]
    return dg.Definitions.merge(data, features, training_of(engines), prediction_of(engines), trading, monitoring, local)


defs = dg.Definitions.merge(data, features, training, prediction, trading, monitoring, local)
