"""Postgres, the system of record, as a Dagster resource: one pool for a run, opened when the run starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from tidemill.config import load_settings
from tidemill.study.workspace import Workspace, open_workspace
from tidemill.telemetry import correlated


class PostgresResource(dg.ConfigurableResource[Any]):
    """The workspace of the settings in force: the database pool, and the loop that its calls run in.

    Servers are joined, or started when nobody has. Settings come from `tidemill.config`, never from run config, so no run
    holds a password. What is logged while it is open, and asked of other services, carries the id of the run.
    """

    _workspace: Workspace = PrivateAttr()

    @property
    def workspace(self) -> Workspace:
        return self._workspace

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["PostgresResource"]:
        with correlated(context.run_id or ""), open_workspace(load_settings()) as opened:
            self._workspace = opened
            yield self
