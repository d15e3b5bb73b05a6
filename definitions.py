"""The only wiring point: six services, each a `Definitions` of its own, and all of them merged for the local workspace.

`deploy/` can load the six as separate code locations (`python_file` and `attribute`); `defs` is what `tidemill up` serves.
"""

from collections.abc import Collection, Sequence

import dagster as dg

from assets.engine_keys import model_keys, trained
from assets.features.checks import feature_causality, feature_checks
from assets.features.regime import regime
from assets.features.sentiment import sentiment
from assets.features.technical import technical, training_set
from assets.market_data.bars import bars, gaps, instruments
from assets.market_data.checks import bar_checks
from assets.market_data.fear_greed import fear_greed
from assets.market_data.news import news
from assets.models.champion import champion
from assets.models.engines import engine_assets, ensemble_asset
from assets.models.risk import risk, risk_forecasts
from assets.partitions import FIRST_MONTH
from assets.performance.drift import drift
from assets.performance.notebooks import notebook_assets
from assets.performance.report import engines as engine_performance
from assets.performance.report import portfolio, report
from assets.predictions.checks import prediction_causality, prediction_checks
from assets.predictions.engines import engines_asset, ensemble
from assets.predictions.validity import prediction_validity
from assets.trading.backtest import backtest, signals
from assets.trading.checks import signal_causality
from resources.environments import resources
from sensors.new_data import new_data_sensor
from sensors.retraining import retraining_schedule, retraining_sensor
from sensors.schedules import retention_job, retention_schedule
from tidemill.config import Settings, load_settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.models.base import EngineInfo
from tidemill.steps.features.regime import names_regimes
from tidemill.steps.market_data.bars import month_range
from tidemill.study.registry import Registry


def _service(name: str, about: str, assets: list[dg.AssetsDefinition], *checks: dg.AssetChecksDefinition) -> dg.Definitions:
    """Assets of one group with their checks, and the job, named as the service, that makes all of them."""
    job = dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        description=f"{about} Only what this service makes: what others make is read as it is.",
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(assets=assets, asset_checks=checks, jobs=[job], resources=resources)


data = _service("data", "Bars, instruments, gaps, index and news.", [bars, instruments, gaps, fear_greed, news], bar_checks)
features = _service(
    "features", "Features and labels.", [technical, regime, sentiment, training_set], feature_checks, feature_causality
)


def _training(engines: Sequence[EngineInfo]) -> dg.Definitions:
    about = "Every engine, their ensemble, risk and the champion."
    return _service("training", about, [*engine_assets(engines), ensemble_asset(engines), champion, risk])


def _prediction(engines: Sequence[EngineInfo]) -> dg.Definitions:
    return _service(
        "prediction",
        "Predictions out of sample.",
        [engines_asset(engines), ensemble, risk_forecasts],
        prediction_checks,
        prediction_causality,
        prediction_validity,
    )


ENGINES = trained(Registry.of(load_settings()))
training, prediction = _training(ENGINES), _prediction(ENGINES)
trading = _service("trading", "Signals and backtests.", [signals, backtest], signal_causality)
monitoring = _service(
    "monitoring",
    "Performance, drift, report and notebooks.",
    [engine_performance, portfolio, drift, report, *notebook_assets],
)

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
    idle = {*apart, *(set(model_keys(ENGINES)) - wanted)}
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
    others = [info for info in ENGINES if info.name not in own]
    engines = [*others, *(EngineInfo(name=name, kind="custom", about=about) for name, about in own.items())]
    return dg.Definitions.merge(data, features, _training(engines), _prediction(engines), trading, monitoring, local)


defs = dg.Definitions.merge(data, features, training, prediction, trading, monitoring, local)
