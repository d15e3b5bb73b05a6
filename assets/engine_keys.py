"""The engines of a graph, and the keys of their assets: what the services know of each other.

An engine that is added to the registry appears in the graph by itself, and so does one of a file that the settings name.
"""

from collections.abc import Iterable
from functools import cache

import dagster as dg

from tidemill.config import load_settings
from tidemill.models.base import EngineInfo
from tidemill.study.registry import Registry


def trained(registry: Registry) -> tuple[EngineInfo, ...]:
    """Those that are trained each for itself; the ensemble has an asset of its own."""
    return tuple(engine.info for engine in registry.engines.all() if engine.info.kind != "ensemble")


@cache
def engines_in_force() -> tuple[EngineInfo, ...]:
    """Those of this process: what ships, and what the files that the settings name declare."""
    return trained(Registry.of(load_settings()))


def model_keys(engines: Iterable[EngineInfo]) -> tuple[dg.AssetKey, ...]:
    """The keys of their models."""
    return tuple(dg.AssetKey(["models", info.name]) for info in engines)
