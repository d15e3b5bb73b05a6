"""Fixtures for every test: real data beside the project (and what to do where it is absent), a real Postgres, a real Redis."""

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tidemill.config import Secret, Settings
from tidemill.embedded import Servers, stop
from tidemill.embedded import servers as running_servers
from tidemill.keeper.folder import SERVERS, existing, locate
from tidemill.keeper.processes import processes_in

pytest_plugins = ["tests.study.fixtures"]

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TIDEMILL_SHARED", PROJECT.parent / "shared")) / "data"
REQUIRED = frozenset(filter(None, os.environ.get("TIDEMILL_REQUIRE", "").split(",")))


def skip_or_fail(what: str, reason: str) -> None:
    """Skip with a reason, or fail when TIDEMILL_REQUIRE names `what` (data, browser)."""
    if what in REQUIRED:
        pytest.fail(f"TIDEMILL_REQUIRE={what}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    """Declarations of a file that a test loaded in this process do not outlive it."""
    yield
    loading = sys.modules.get("tidemill.user_modules.loading")
    for made in loading.loaded_modules() if loading else ():
        loading.unload_module(made.file)


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
    yield settings
    remove_home(settings)


@pytest.fixture(scope="session")
def servers(server_home: Settings) -> Iterator[Servers]:
    """The shared embedded Postgres and Redis, running for the whole session."""
    with running_servers(server_home) as found:
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
async def fresh_dsn(servers: Servers) -> AsyncIterator[Secret]:
    """Address of an empty Postgres database of the test's own, dropped after it."""
    import asyncpg

    shared = servers.postgres_dsn.reveal()
    name = f"test_{uuid.uuid4().hex}"
    async with asyncio.timeout(20):
        connection = await asyncpg.connect(shared)
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        await connection.close()
    yield Secret(f"{shared.rpartition('/')[0]}/{name}")
    async with asyncio.timeout(20):
        connection = await asyncpg.connect(shared)
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()


@pytest.fixture
def redis_url(servers: Servers) -> Secret:
    """Address of the shared Redis, emptied for this test."""
    import redis

    with redis.Redis.from_url(servers.redis_url.reveal()) as client:
        client.flushall()
    return servers.redis_url
