"""Fixtures for every test: real data beside the project (and what to do where it is absent), a real Postgres, a real Redis."""

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.databases import administer, name_of, new_database
from tidemill.config import Secret, Settings
from tidemill.embedded import Servers, stop
from tidemill.embedded import servers as running_servers
from tidemill.keeper.folder import SERVERS, existing, locate
from tidemill.keeper.processes import processes_in

pytest_plugins = ["tests.study.fixtures"]

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TIDEMILL_SHARED", PROJECT.parent / "shared")) / "data"
REQUIRED = frozenset(filter(None, os.environ.get("TIDEMILL_REQUIRE", "").split(",")))
MEMORY, ROOM = Path("/dev/shm"), 3 << 30  # two processes with a server each need a third of that


def pytest_configure() -> None:
    """Folders of tests lie in memory where there is room: a home syncs every file, and a disk takes milliseconds for each.

    What a killed process wrote is there for the next one, synced or not. PYTEST_DEBUG_TEMPROOT names another place.
    """
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def skip_or_fail(what: str, reason: str) -> None:
    """Skip with a reason, or fail when TIDEMILL_REQUIRE names `what` (data, browser)."""
    if what in REQUIRED:
        pytest.fail(f"TIDEMILL_REQUIRE={what}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    """A test is a notebook of its own: what it loaded is not known to the next."""
    yield
    lab = sys.modules.get("tidemill.lab")
    if lab is not None:
        lab._loaded.clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data that lies beside the project, never in it."""
    if not SHARED.is_dir():
        skip_or_fail("data", f"no real data at {SHARED}")
    return SHARED


def remove_home(settings: Settings) -> None:
    """Stop the servers of a home, see that nothing of them is left, and remove its data, which for root lies elsewhere."""
    folder = existing(settings.home)
    if folder is None:
        return
    stopped = stop(settings)
    left = [process.pid for name in SERVERS for process in processes_in(folder.data_of(name))]
    shutil.rmtree(folder.root, ignore_errors=True)
    shutil.rmtree(settings.home, ignore_errors=True)
    assert stopped, f"a test still holds the servers of {settings.home}"
    assert not left, f"processes {left} of {settings.home} were left running"


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of the home whose servers all tests share. Do not kill these: `new_home` makes some for that."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), keeper_linger=5.0)
    _move_to_memory(settings.home)
    yield settings
    remove_home(settings)


def _move_to_memory(home: Path) -> None:
    """Move the folder that root's servers have outside the home to where the home is, if that is in memory.

    Nearly every test copies a database: 15 ms in memory, and 70 ms to a second on a disk that others use too.
    """
    root, link = locate(home).root, home / "servers"
    if link.is_symlink() and home.is_relative_to(MEMORY):
        moved = shutil.move(root, MEMORY / f"tidemill-{uuid.uuid4().hex}")
        link.unlink()
        link.symlink_to(moved)


@pytest.fixture(scope="session")
def servers(server_home: Settings) -> Iterator[Servers]:
    """The shared embedded Postgres and Redis, for the whole session, which nothing there outlives: it syncs nothing."""
    with running_servers(server_home) as found:
        for setting in ("fsync", "full_page_writes"):
            administer(found.postgres_dsn, f"ALTER SYSTEM SET {setting} = off")
        administer(found.postgres_dsn, "SELECT pg_reload_conf()")
        yield found


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Servers' folder of a stopped home whose database was made and never used: to copy it costs a tenth of making one."""
    settings = Settings(home=tmp_path_factory.mktemp("prepared"), keeper_linger=0.0)
    with running_servers(settings):
        pass
    assert stop(settings)
    yield locate(settings.home).root
    remove_home(settings)


@pytest.fixture
def new_home(tmp_path: Path, _prepared: Path) -> Iterator[Callable[..., Settings]]:
    """`new_home(keeper_linger=…)` gives settings of a home of the test's own with an empty database; nothing of it is left.

    With `prepared=False` there is not even a home folder. These servers may be killed and damaged.
    """
    made: list[Settings] = []

    def make(*, prepared: bool = True, **changes: object) -> Settings:
        settings = Settings(**{"home": tmp_path / f"home{len(made)}", "keeper_linger": 5.0, **changes})  # type: ignore[arg-type]  # any setting
        made.append(settings)
        if prepared:
            root = locate(settings.home).root
            subprocess.run(["cp", "-a", _prepared / "postgres", _prepared / "credentials.json", root], check=True, timeout=60)
        return settings

    yield make
    for settings in made:
        remove_home(settings)


@pytest.fixture
def fresh_dsn(servers: Servers) -> Iterator[Secret]:
    """Address of a Postgres database of the test's own without any table, dropped after it."""
    with new_database(servers.postgres_dsn) as made:
        yield made


@pytest.fixture(scope="session")
def migrated(servers: Servers) -> Iterator[str]:
    """Name of a database with the tables of the schema, empty, to be copied."""
    with new_database(servers.postgres_dsn) as made:
        asyncio.run(_migrate(made))
        yield name_of(made)


async def _migrate(dsn: Secret) -> None:
    from tidemill.storage.migrations import migrate
    from tidemill.storage.postgres import Database

    database = await Database.connect(dsn, connections=1)
    await migrate(database)
    await database.close()


@pytest.fixture
def migrated_dsn(servers: Servers, migrated: str) -> Iterator[Secret]:
    """Address of a database of the test's own whose tables are there and empty, as those of a home before its first run."""
    with new_database(servers.postgres_dsn, migrated) as made:
        yield made


@pytest.fixture(scope="session")
def with_dagster(servers: Servers, migrated: str) -> Iterator[str]:
    """Name of a database with the tables of the schema and Dagster's, empty, to be copied."""
    from orchestration.storage import PooledPostgresStorage, dagster_dsn

    with new_database(servers.postgres_dsn, migrated) as made:
        storage = PooledPostgresStorage(dagster_dsn(made).reveal())
        storage.run_storage.dispose()
        yield name_of(made)


@pytest.fixture
def redis_url(servers: Servers) -> Secret:
    """Address of the shared Redis, emptied for this test."""
    import redis

    with redis.Redis.from_url(servers.redis_url.reveal()) as client:
        client.flushall()
    return servers.redis_url
