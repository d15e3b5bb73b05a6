"""What may happen to the embedded servers: killed, frozen, moved, copied, without disk. Nothing is lost or left running."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from tests.holders import (
    Holder,
    folder_of,
    processes_of,
    state_of,
    wait_for,
    wait_until_stopped,
)
from tidemill.config import Secret, Settings
from tidemill.domain.errors import ConfigError, IntegrityError, StopError, UnavailableError
from tidemill.embedded import servers, stop
from tidemill.keeper.folder import existing
from tidemill.keeper.processes import start_time

NewHome = Callable[..., Settings]


async def ask(dsn: Secret, question: str) -> object:
    connection = await asyncpg.connect(dsn.reveal(), timeout=10)
    try:
        return await connection.fetchval(question, timeout=10)
    finally:
        await connection.close()


def pid_of(home: Settings, server: str) -> int:
    return state_of(home).running[server].process.pid


def kill(pid: int) -> None:
    """Returns when it is dead."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: start_time(pid) is None, "the death of a process")


def kill_all(home: Settings) -> None:
    """Keeper first, so that it repairs nothing."""
    pids = [process.pid for process in processes_of(home)]
    for pid in sorted(pids, key=lambda pid: pid != state_of(home).keeper.pid):
        kill(pid)
    wait_until_stopped(home)


def wait_for_another(home: Settings, server: str, pid: int) -> None:
    def came() -> bool:
        running = state_of(home).running.get(server)
        return running is not None and running.process.pid != pid

    wait_for(came, f"a new {server}")


async def write_one(dsn: Secret) -> None:
    await ask(dsn, "CREATE TABLE IF NOT EXISTS facts (fact int)")
    await ask(dsn, "INSERT INTO facts VALUES (1)")


async def facts(dsn: Secret) -> object:
    return await ask(dsn, "SELECT count(*) FROM facts")


async def test_a_killed_postgres_comes_back_at_its_address_with_what_was_committed(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
        killed = pid_of(home, "postgres")
        kill(killed)
        wait_for_another(home, "postgres", killed)
        assert await facts(found.postgres_dsn) == 1


async def test_a_command_that_comes_right_after_the_kill_waits_for_the_repair(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as first:
        await write_one(first.postgres_dsn)
        kill(pid_of(home, "postgres"))
        with servers(home) as second:
            assert second == first
            assert await facts(second.postgres_dsn) == 1


def test_a_killed_redis_comes_back_empty_at_its_address(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as found:
        with redis.Redis.from_url(found.redis_url.reveal()) as client:
            client.set("key", "value")
        killed = pid_of(home, "redis")
        kill(killed)
        wait_for_another(home, "redis", killed)
        with redis.Redis.from_url(found.redis_url.reveal()) as client:
            assert client.get("key") is None


async def test_the_servers_of_a_killed_keeper_are_adopted_while_they_are_used(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as first:
        connection = await asyncpg.connect(first.postgres_dsn.reveal())
        before = state_of(home)
        kill(before.keeper.pid)
        with servers(home) as second:
            assert second == first
            assert state_of(home).running == before.running
            assert state_of(home).keeper != before.keeper
            assert await connection.fetchval("SELECT 'still here'") == "still here"
        killed = pid_of(home, "redis")  # the new keeper watches over them too
        kill(killed)
        wait_for_another(home, "redis", killed)
        await connection.close()


def test_a_command_whose_keeper_was_killed_leaves_nothing_running(new_home: NewHome) -> None:
    home = new_home(keeper_linger=0.0)
    holder = Holder(home)
    holder.addresses()
    kill(state_of(home).keeper.pid)
    holder.leave()
    wait_until_stopped(home)


def test_stop_finds_the_servers_of_a_killed_keeper(new_home: NewHome) -> None:
    home = new_home()
    holder = Holder(home)
    holder.addresses()
    kill(state_of(home).keeper.pid)
    holder.kill()
    assert len(processes_of(home)) > 2
    assert stop(home)
    wait_until_stopped(home)


async def test_after_the_kill_of_everything_nothing_committed_is_lost(new_home: NewHome) -> None:
    home = new_home()
    for run in range(3):
        with servers(home) as found:
            await write_one(found.postgres_dsn)
            assert await facts(found.postgres_dsn) == run + 1
            kill_all(home)


async def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
        kill_all(home)
    # Another process of the same user has the pid now, as happens in a container that was restarted.
    user = {"user": 65534} if os.geteuid() == 0 else {}
    bystander = subprocess.Popen(["sleep", "300"], **user)  # noqa: ASYNC220 - it blocks nothing
    try:
        pid_file = folder_of(home).root / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        with servers(home) as found:
            assert await facts(found.postgres_dsn) == 1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_backend_that_outlives_its_killed_postmaster_does_not_block_the_repair(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
        connection = await asyncpg.connect(found.postgres_dsn.reveal())
        os.kill(connection.get_server_pid(), signal.SIGSTOP)
        killed = pid_of(home, "postgres")
        kill(killed)
        wait_for_another(home, "postgres", killed)
        assert await facts(found.postgres_dsn) == 1
        connection.terminate()


async def test_a_frozen_postgres_without_keeper_is_replaced(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
        kill(state_of(home).keeper.pid)
        frozen = pid_of(home, "postgres")
        os.kill(frozen, signal.SIGSTOP)
        with servers(home) as again:
            assert pid_of(home, "postgres") != frozen
            assert await facts(again.postgres_dsn) == 1


def test_a_server_that_dies_again_and_again_is_given_up_and_the_next_command_repairs(new_home: NewHome) -> None:
    home = new_home()
    with servers(home):
        for _ in range(5):
            killed = pid_of(home, "redis")
            kill(killed)
            wait_for_another(home, "redis", killed)
        kill(pid_of(home, "redis"))
        wait_until_stopped(home)
        with servers(home) as found, redis.Redis.from_url(found.redis_url.reveal()) as client:
            assert client.ping()


async def test_a_taken_port_is_left_to_who_has_it(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
        ports = state_of(home).ports
    assert stop(home)
    with (
        closing(socket.create_server(("127.0.0.1", ports["postgres"]))),
        closing(socket.create_server(("127.0.0.1", ports["redis"]))),
        servers(home) as found,
    ):
        now = state_of(home).ports
        assert not set(now.values()) & set(ports.values())
        assert await facts(found.postgres_dsn) == 1


async def test_a_moved_home_keeps_its_data(new_home: NewHome, tmp_path: Path) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
    assert stop(home)
    (tmp_path / "elsewhere").mkdir()
    moved = new_home(prepared=False, home=tmp_path / "elsewhere" / "home")
    home.home.rename(moved.home)
    with servers(moved) as found:
        assert await facts(found.postgres_dsn) == 1
    assert stop(moved)
    with servers(home) as found:  # what is made anew at the old place is another home
        assert await ask(found.postgres_dsn, "SELECT to_regclass('facts')::text") is None
    with servers(moved) as found:
        assert await facts(found.postgres_dsn) == 1


async def test_a_home_that_is_moved_while_it_is_used_goes_on(new_home: NewHome, tmp_path: Path) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
        moved = new_home(prepared=False, home=tmp_path / "moved")
        home.home.rename(moved.home)
        with servers(moved) as again:
            assert again == found
            assert await facts(again.postgres_dsn) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lie outside the home")
def test_a_copy_of_a_home_does_not_share_its_database(new_home: NewHome, tmp_path: Path) -> None:
    home = new_home()
    copy = Settings(home=tmp_path / "copy")
    shutil.copytree(home.home, copy.home, symlinks=True)
    with pytest.raises(ConfigError, match=r"is a copy of .* Remove the link .* to start with an empty one"), servers(copy):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lie outside the home")
def test_a_home_whose_data_are_gone_says_so_and_makes_no_empty_database(new_home: NewHome) -> None:
    home = new_home()
    root = folder_of(home).root
    root.rename(root.with_name(root.name + ".away"))
    with pytest.raises(ConfigError, match=r"which is gone. Restore it, or remove the link"), servers(home):
        pass
    root.with_name(root.name + ".away").rename(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lie outside the home")
def test_data_that_a_deleted_home_left_stay_where_they_are(new_home: NewHome) -> None:
    home = new_home()
    root = folder_of(home).root
    shutil.rmtree(home.home)
    with servers(home):
        assert folder_of(home).root != root
    assert (root / "postgres" / "PG_VERSION").exists()
    shutil.rmtree(root)


@pytest.mark.long  # its short form is that of the moved home, at whose old place another one is made
async def test_a_home_that_was_put_aside_and_back_has_its_own_database(new_home: NewHome, tmp_path: Path) -> None:
    home = new_home()
    with servers(home) as found:
        await write_one(found.postgres_dsn)
    assert stop(home)
    home.home.rename(tmp_path / "aside")
    with servers(home) as found:  # an empty one, while the other is away and nobody asks for it
        assert await ask(found.postgres_dsn, "SELECT to_regclass('facts')::text") is None
    assert stop(home)
    home.home.rename(tmp_path / "second")
    (tmp_path / "aside").rename(home.home)
    with servers(home) as found:
        assert await facts(found.postgres_dsn) == 1
    second = new_home(prepared=False, home=tmp_path / "second")
    with servers(second) as found:
        assert await ask(found.postgres_dsn, "SELECT to_regclass('facts')::text") is None


async def test_lost_passwords_are_replaced(new_home: NewHome) -> None:
    home = new_home()
    with servers(home) as before:
        await write_one(before.postgres_dsn)
    assert stop(home)
    (folder_of(home).root / "credentials.json").unlink()
    with servers(home) as after:
        assert after.postgres_dsn != before.postgres_dsn
        assert await facts(after.postgres_dsn) == 1


def test_a_start_that_was_killed_half_way_is_done_again(new_home: NewHome) -> None:
    home = new_home(prepared=False)
    holder = Holder(home)
    with half_way(home):
        lock = os.stat(folder_of(home).keeper)
        keeper = next(
            process for process in psutil.process_iter() if holds(process, lock) and process.pid != holder.process.pid
        )
        keeper.kill()
        assert "UnavailableError: The keeper of the servers" in holder.error()
    assert not (folder_of(home).root / "postgres").exists()
    with servers(home) as found:
        assert found.embedded


@contextmanager
def half_way(home: Settings) -> Iterator[None]:
    """Frozen while the database is being made."""
    making: list[psutil.Process] = []

    def found() -> bool:
        if not making and home.home.exists():
            making.extend(process for process in psutil.process_iter() if makes_database(process, home))
            for process in making:
                process.suspend()
        return bool(making)

    wait_for(found, "the making of the database")
    try:
        yield
    finally:
        for process in making:
            process.resume()


def makes_database(process: psutil.Process, home: Settings) -> bool:
    folder = existing(home.home)
    with suppress(psutil.Error):
        return folder is not None and process.name() == "initdb" and any(str(folder.root) in part for part in process.cmdline())
    return False


def holds(process: psutil.Process, file: os.stat_result) -> bool:
    """Whether a process has this file open."""
    for descriptor in Path(f"/proc/{process.pid}/fd").glob("*"):
        try:
            stat = descriptor.stat()
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) == (file.st_dev, file.st_ino):
            return True
    return False


def test_damaged_data_are_reported_and_never_made_anew(new_home: NewHome) -> None:
    home = new_home()
    data = folder_of(home).root / "postgres"
    (data / "global" / "pg_control").unlink()
    with pytest.raises(UnavailableError, match="pg_control"), servers(home):
        pass
    (data / "PG_VERSION").write_text("12\n")
    with pytest.raises(IntegrityError, match="made by Postgres 12"), servers(home):
        pass
    assert (data / "base").is_dir()
    wait_until_stopped(home)


def test_a_home_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StopError, match="Correct that, or set TIDEMILL_HOME"), servers(Settings(home=tmp_path / "home")):
        pass


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own on `folder`, with what was in it."""
    mounted = folder.with_name(folder.name + ".disk")
    mounted.mkdir(mode=0o711)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "none", mounted], capture_output=True, check=False
    )
    if done.returncode != 0:
        mounted.rmdir()
        pytest.skip("this user may not mount a file system")
    try:
        subprocess.run(["cp", "-a", f"{folder}/.", mounted], check=True)
        subprocess.run(["mount", "--bind", mounted, folder], check=True)
        try:
            yield
        finally:
            # The keeper may be on its way out.
            wait_for(lambda: subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0, "umount")
    finally:
        subprocess.run(["umount", mounted], check=True)
        mounted.rmdir()


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1_000_000))
    assert shutil.disk_usage(folder).free == 0
    return ballast


FULL = r"The disk that holds .* is full. Free at least 200 MB there, or set TIDEMILL_HOME to a folder on another disk."


async def test_a_disk_that_fills_up_loses_nothing_that_was_committed(new_home: NewHome) -> None:
    home = new_home(keeper_linger=0.0)
    with small_disk(folder_of(home).root, 200):
        with servers(home) as found:
            await write_one(found.postgres_dsn)
            ballast = fill(folder_of(home).root)
            with pytest.raises((asyncpg.DiskFullError, asyncpg.PostgresConnectionError, OSError)):
                await ask(found.postgres_dsn, "CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
        wait_until_stopped(home)
        with pytest.raises(StopError, match=FULL), servers(home):
            pass
        wait_until_stopped(home)
        ballast.unlink()
        with servers(home) as found:
            assert await facts(found.postgres_dsn) == 1
        assert stop(home)


def test_a_disk_too_small_for_a_database_is_one_sentence(new_home: NewHome) -> None:
    home = new_home()
    shutil.rmtree(folder_of(home).root / "postgres")
    with small_disk(folder_of(home).root, 20), pytest.raises(StopError, match=FULL), servers(home):
        pass


def test_a_folder_that_cannot_be_written_is_one_sentence(new_home: NewHome) -> None:
    home = new_home()
    root = folder_of(home).root
    with small_disk(root, 100):
        subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
        with (
            pytest.raises(
                StopError, match=r"cannot be written .*Read-only file system.*Correct that, or use another TIDEMILL_HOME"
            ),
            servers(home),
        ):
            pass
