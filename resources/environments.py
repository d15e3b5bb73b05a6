"""Which resources the assets get. Everything that differs between environments is a setting of `tidemill.config`."""

from resources.experiment import ExperimentResource
from resources.postgres import PostgresResource
from resources.redis import RedisResource

_postgres = PostgresResource()

resources = {
    "postgres": _postgres,
    "redis": RedisResource(postgres=_postgres),
    "experiment": ExperimentResource(postgres=_postgres),
}
