"""What of the graph was made for a study, by the keys of its assets: what a step reads is there, or it is said.

An asset may be materialized alone, in a process that knows nothing of the others: whether they were made the lake tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tidemill.domain.errors import InputError
from tidemill.domain.naming import listed
from tidemill.steps.market_data.fear_greed import index_is_kept
from tidemill.steps.market_data.news import news_are_kept
from tidemill.steps.models.risk import risk_key
from tidemill.study.model_index import has_index, models_home
from tidemill.study.places import report_path
from tidemill.study.study import Study
from tidemill.study.tables import (
    BARS,
    DRIFT,
    ENGINES,
    EQUITY,
    FEATURES,
    LABELS,
    METRICS,
    PORTFOLIO,
    PREDICTIONS,
    SIGNALS,
)


def require_made(study: Study, asset: str, upstream: Iterable[str]) -> None:
    """InputError when something that `asset` reads was never made. All of them are keys of assets."""
    wanted = set(upstream)
    missing = [name for name in (*_MADE, *sorted(wanted - _MADE.keys())) if name in wanted and not is_made(study, name)]
    if missing:
        many = len(missing) > 1
        raise InputError(
            f"{asset} reads {listed(missing)}, which {'were' if many else 'was'} never made for the experiment "
            f"{study.experiment.name}: materialize {'these' if many else 'it'} first, or make everything with `tidemill run`."
        )


def is_made(study: Study, asset: str) -> bool:
    """Whether what an asset keeps for a study is there. Nothing is missing of one that its experiment does not ask for."""
    if asset in _MADE:
        return _MADE[asset](study)
    service, _, engine = asset.partition("/")
    return service != "models" or _is_trained(study, engine)


def _is_trained(study: Study, engine: str) -> bool:
    """An engine that failed takes no part, and one that the experiment does not name never did."""
    keys = [study.engine_key(spec) for spec in study.engines if spec.name == engine]
    return all(has_index(models_home(study.workspace), key) for key in keys)


def _are_predicted(study: Study) -> bool:
    return all(study.lake.holds(PREDICTIONS, study.engine_key(spec)) for spec in study.engines)


# In the order of the graph. Instruments and gaps are told of what the import of the bars stored.
_MADE: dict[str, Callable[[Study], bool]] = {
    "market_data/bars": lambda study: study.lake.holds(BARS, study.dataset.bars_key),
    "market_data/fear_greed": lambda study: study.experiment.features.fear_greed is None or index_is_kept(study),
    "market_data/news": lambda study: study.experiment.news is None or news_are_kept(study),
    "features/technical": lambda study: study.lake.holds(FEATURES, study.features_key),
    "features/training_set": lambda study: study.lake.holds(LABELS, study.labels_key),
    "models/risk": lambda study: study.experiment.risk is None or has_index(models_home(study.workspace), risk_key(study)),
    "predictions/engines": _are_predicted,
    "models/ensemble": lambda study: has_index(models_home(study.workspace), study.ensemble_key),
    "predictions/ensemble": lambda study: study.lake.holds(PREDICTIONS, study.ensemble_key),
    "trading/signals": lambda study: study.lake.holds(SIGNALS, study.key),
    "trading/backtest": lambda study: study.lake.holds(EQUITY, study.key),
    "performance/engines": lambda study: study.lake.manifest(METRICS, study.key, ENGINES) is not None,
    "performance/portfolio": lambda study: study.lake.manifest(METRICS, study.key, PORTFOLIO) is not None,
    "performance/drift": lambda study: study.lake.holds(DRIFT, study.key),
    "performance/report": lambda study: report_path(study).is_file(),
}
