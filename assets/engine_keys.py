"""The engines of this process's graph, and the keys of their assets: what the services know of each other.

An engine that is added to the registry appears in the graph by itself. So does one of a module that was loaded before: those of
the settings, and in `tidemill run` those of its experiment.
"""

import dagster as dg

from tidemill.models.registry import engines
from tidemill.user_modules.adoption import configured

configured()
# Those that are trained each for itself; the ensemble has an asset of its own.
TRAINED = tuple(engine.info for engine in engines() if engine.info.kind != "ensemble")
MODEL_KEYS = tuple(dg.AssetKey(["models", info.name]) for info in TRAINED)
