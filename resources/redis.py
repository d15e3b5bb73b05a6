"""Redis, behind the cache, as a Dagster resource. It can be lost at any moment without losing a fact."""

from typing import Any

import dagster as dg

from resources.postgres import PostgresResource
from tidemill.storage.cache import Cache


class RedisResource(dg.ConfigurableResource[Any]):
    """The cache of the workspace: memory first, then Redis; without Redis slower, not broken."""

    postgres: dg.ResourceDependency[PostgresResource]

    @property
    def cache(self) -> Cache:
        return self.postgres.workspace.cache
