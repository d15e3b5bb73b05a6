"""An instance on a database of the test's own, copied from one that has Dagster's tables: that takes a tenth of making them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance

from orchestration.instance import instance
from tests.databases import new_database
from tidemill.config import Secret, Settings
from tidemill.embedded import Servers

SMALL = "tests.orchestration.small_definitions"
NOBODY = Secret("redis://127.0.0.1:1/0")


@pytest.fixture
def own_dsn(servers: Servers, with_dagster: str) -> Iterator[Secret]:
    with new_database(servers.postgres_dsn, with_dagster) as made:
        yield made


@pytest.fixture
def own_servers(own_dsn: Secret) -> Servers:
    return Servers(postgres_dsn=own_dsn, redis_url=NOBODY, embedded=False)


@pytest.fixture
def settings(tmp_path: Path, own_servers: Servers) -> Settings:
    return Settings(home=tmp_path / "home", postgres_dsn=own_servers.postgres_dsn, redis_url=own_servers.redis_url)


@pytest.fixture
def opened(settings: Settings, own_servers: Servers) -> Iterator[DagsterInstance]:
    with instance(settings, own_servers) as made:
        yield made
