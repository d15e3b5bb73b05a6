"""The doctor: everything is looked at, and what is wrong comes with what to do."""

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import asyncpg
import msgspec
import pytest

from tests.holders import folder_of
from tidemill.config import Secret, Settings
from tidemill.embedded import Servers, stop
from tidemill.maintenance.doctor import Finding, examine


def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def look(settings: Settings) -> dict[str, Finding]:
    findings = examine(settings)
    assert len({finding.name for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.ok or finding.advice, f"{finding.name} failed without advice"
        assert finding.detail
    return {finding.name: finding for finding in findings}


@pytest.mark.usefixtures("servers")
def test_a_healthy_home_is_found_healthy(server_home: Settings) -> None:
    ports = {"webserver_port": closed_port(), "jupyter_port": closed_port()}
    findings = look(msgspec.structs.replace(server_home, **ports))
    # Disk, clock and leftovers are this machine's own.
    wrong = [finding for name, finding in findings.items() if not finding.ok and name not in {"disk", "clock", "leftovers"}]
    assert not wrong
    assert findings["postgres"].detail.startswith("18.")
    assert "no tables yet" in findings["postgres"].detail or "schema" in findings["postgres"].detail
    assert findings["servers"].detail.startswith("attached in")


def test_servers_that_do_not_answer_are_named_with_their_variable(tmp_path: Path) -> None:
    away = Settings(
        home=tmp_path / "home",
        postgres_dsn=Secret(f"postgresql://u:secret-word@127.0.0.1:{closed_port()}/x"),
        redis_url=Secret(f"redis://:secret-word@127.0.0.1:{closed_port()}/0"),
    )
    findings = look(away)
    assert not findings["postgres"].ok
    assert "TIDEMILL_POSTGRES_DSN" in findings["postgres"].advice
    assert not findings["redis"].ok
    assert "TIDEMILL_REDIS_URL" in findings["redis"].advice
    assert "secret-word" not in str(findings)


def test_a_port_in_use_is_named_with_its_variable(server_home: Settings, servers: Servers) -> None:
    given = {"postgres_dsn": servers.postgres_dsn, "redis_url": servers.redis_url}
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        finding = look(msgspec.structs.replace(server_home, webserver_port=port, **given))[f"port {port}"]
    assert not finding.ok
    assert "TIDEMILL_WEBSERVER_PORT" in finding.advice


async def test_a_schema_from_a_newer_program_is_found(fresh_dsn: Secret, servers: Servers, tmp_path: Path) -> None:
    connection = await asyncpg.connect(fresh_dsn.reveal())
    await connection.execute("CREATE TABLE schema_migrations (number int); INSERT INTO schema_migrations VALUES (999)")
    await connection.close()
    finding = look(Settings(home=tmp_path, postgres_dsn=fresh_dsn, redis_url=servers.redis_url))["postgres"]
    assert not finding.ok
    assert finding.advice == "A newer tidemill made this database: update this one."


def test_a_home_that_cannot_be_used_is_found(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    findings = look(Settings(home=tmp_path / "home"))
    assert not findings["home"].ok
    assert not findings["servers"].ok
    assert "postgres" not in findings


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lie outside the home")
def test_data_of_a_home_that_is_gone_are_found(new_home: Callable[..., Settings], servers: Servers, tmp_path: Path) -> None:
    home = new_home()
    root = folder_of(home).root
    (home.home / "servers").unlink()
    given = {"postgres_dsn": servers.postgres_dsn, "redis_url": servers.redis_url}
    finding = look(Settings(home=tmp_path / "other", **given))["leftovers"]
    shutil.rmtree(root)
    assert finding.ok  # nothing is wrong with the home that was asked about
    assert f"{root} of {home.home}" in finding.detail
    assert "rm " not in finding.advice, "the home may be on a disk that is not mounted, or in a container"
    assert "Only those of homes that you deleted are of no use" in finding.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lie outside the home")
def test_a_home_that_was_just_moved_is_not_told_to_delete_its_own_database(
    new_home: Callable[..., Settings], tmp_path: Path
) -> None:
    home, moved = new_home(), tmp_path / "moved"
    root = folder_of(home).root
    stop(home)
    home.home.rename(moved)
    detail = look(Settings(home=moved))["leftovers"].detail
    stop(Settings(home=moved))
    moved.rename(home.home)
    assert str(root) not in detail


def test_an_ordinary_user_is_not_stopped_by_what_root_keeps(
    server_home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of-root" / "postgres").mkdir(parents=True)

    def refuse(root: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(root / "home"))

    monkeypatch.setattr("tidemill.maintenance.doctor.SYSTEM_FOLDER", tmp_path)
    monkeypatch.setattr("tidemill.maintenance.doctor.is_linked", refuse)
    monkeypatch.setattr("tidemill.maintenance.doctor.os.geteuid", lambda: 1000)
    assert look(server_home)["leftovers"].ok
