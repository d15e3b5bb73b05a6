"""The service `training`."""

from collections.abc import Sequence

import dagster as dg

from assets.engine_keys import engines_in_force
from assets.models.champion import champion
from assets.models.engines import engine_assets, ensemble_asset
from assets.models.risk import risk
from assets.service import service
from tidemill.models.base import EngineInfo


def training(engines: Sequence[EngineInfo]) -> dg.Definitions:
    """The service with an asset for each of these engines."""
    about = "Every engine, their ensemble, risk and the champion."
    return service("training", about, [*engine_assets(engines), ensemble_asset(engines), champion, risk])


defs = training(engines_in_force())
