"""The service `prediction`."""

from collections.abc import Sequence

import dagster as dg

from assets.engine_keys import engines_in_force
from assets.predictions.checks import prediction_causality, prediction_checks
from assets.predictions.engines import engines_asset, ensemble
from assets.predictions.risk import risk_forecasts
from assets.predictions.validity import prediction_validity
from assets.service import service
from tidemill.models.base import EngineInfo


def prediction(engines: Sequence[EngineInfo]) -> dg.Definitions:
    """The service for predictions of these engines."""
    made = [engines_asset(engines), ensemble, risk_forecasts]
    checks = [prediction_checks, prediction_causality, prediction_validity]
    return service("prediction", "Predictions out of sample.", made, checks)


defs = prediction(engines_in_force())
