"""Which resources the assets get. Everything that differs between environments is a setting of `tidemill.config`."""

from resources.experiment import ExperimentResource
from resources.postgres import PostgresResource

_postgres = PostgresResource()

resources = {"postgres": _postgres, "experiment": ExperimentResource(postgres=_postgres)}
