"""The only wiring point: six services, each a `Definitions` of its own, and all of them merged for the local workspace.

`deploy/` can load the six as separate code locations (`python_file` and `attribute`); `defs` is what `tidemill up` serves.
"""

import dagster as dg

from assets.features.checks import feature_causality, feature_checks
from assets.features.regime import regime
from assets.features.sentiment import sentiment
from assets.features.technical import technical, training_set
from assets.market_data.bars import bars, gaps, instruments
from assets.market_data.checks import bar_checks
from assets.market_data.fear_greed import fear_greed
from assets.market_data.news import news
from assets.models.champion import champion
from assets.models.engines import engine_assets
from assets.models.engines import ensemble as ensemble_model
from assets.models.risk import risk, risk_forecasts
from assets.partitions import FIRST_MONTH
from assets.performance.drift import drift
from assets.performance.notebooks import notebook_assets
from assets.performance.report import engines as engine_performance
from assets.performance.report import portfolio, report
from assets.predictions.checks import prediction_causality, prediction_checks
from assets.predictions.engines import engines, ensemble
from assets.predictions.validity import prediction_validity
from assets.trading.backtest import backtest, signals
from assets.trading.checks import signal_causality
from resources.environments import resources
from sensors.new_data import new_data_sensor
from sensors.retraining import retraining_schedule, retraining_sensor
from sensors.schedules import retention_job, retention_schedule
from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.steps.features.regime import names_regimes
from tidemill.steps.market_data.bars import month_range


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
training = _service(
    "training", "Every engine, their ensemble, risk and the champion.", [*engine_assets, ensemble_model, champion, risk]
)
prediction = _service(
    "prediction",
    "Predictions out of sample.",
    [engines, ensemble, risk_forecasts],
    prediction_checks,
    prediction_causality,
    prediction_validity,
)
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


def asset_selection(experiment: Experiment) -> list[dg.AssetKey]:
    """The assets of a run of the main job: all but the champion, and what the experiment does not name.

    That is engines, regimes, risk, the index and news.

    InputError for an engine of a module that was not loaded when this process made its graph.
    """
    wanted = {spec.name for spec in experiment.engines}
    strange = wanted - {asset.key.path[-1] for asset in engine_assets}
    if strange:
        raise InputError(
            f"The asset graph of this process does not have the engine {min(strange)}. Name its file under `modules` in the "
            "settings and start again, or use `tidemill run`."
        )
    apart = {champion.key, *(asset.key for asset in notebook_assets)}
    idle = {*apart, *(asset.key for asset in engine_assets if asset.key.path[-1] not in wanted)}
    if not names_regimes(experiment):
        idle.add(regime.key)
    if experiment.risk is None:
        idle |= {risk.key, risk_forecasts.key}
    if experiment.features.fear_greed is None:
        idle.add(fear_greed.key)
    if experiment.news is None:
        idle |= {news.key, sentiment.key}
    return [key for key in defs.resolve_all_asset_keys() if key not in idle]


local = dg.Definitions(
    jobs=[main, retraining, notebooks, retention_job],
    schedules=[retention_schedule, retraining_schedule(retraining)],
    sensors=[new_data_sensor(main, partition_range, asset_selection), retraining_sensor(retraining)],
)

defs = dg.Definitions.merge(data, features, training, prediction, trading, monitoring, local)
