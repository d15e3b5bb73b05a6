"""An instance on a database of the test's own, copied from one that has Dagster's tables: that takes a tenth of making them."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from dagster import DagsterInstance

from orchestration.instance import instance
from orchestration.storage import PooledPostgresStorage, dagster_dsn
from tidemill.config import Secret, Settings
from tidemill.embedded import Servers

SMALL = "tests.orchestration.small_definitions"
NOBODY = Secret("redis://127.0.0.1:1/0")


def administer(dsn: Secret, statement: str) -> None:
    connection = psycopg2.connect(dsn.reveal())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def database(servers: Servers, name: str) -> Secret:
    return Secret(f"{servers.postgres_dsn.reveal().rpartition('/')[0]}/{name}")


@pytest.fixture(scope="session")
def template(servers: Servers) -> Iterator[str]:
    """Name of a database with Dagster's tables, empty."""
    name = f"template_{uuid.uuid4().hex}"
    administer(servers.postgres_dsn, f"CREATE DATABASE {name} TEMPLATE template0")
    storage = PooledPostgresStorage(dagster_dsn(database(servers, name)).reveal())
    storage.run_storage.dispose()
    yield name
    administer(servers.postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_dsn(servers: Servers, template: str) -> Iterator[Secret]:
    name = f"test_{uuid.uuid4().hex}"
    administer(servers.postgres_dsn, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield database(servers, name)
    administer(servers.postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


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
