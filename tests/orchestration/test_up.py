"""Everything that `up` starts, on real servers: signed in to, broken, stopped, killed."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import websockets.sync.client

from orchestration.up import free_port
from tests.orchestration.conftest import SMALL
from tidemill.config import Settings
from tidemill.domain.errors import ConfigError
from tidemill.embedded import Servers
from tidemill.processes import warden

CODE = f"""
import sys
from orchestration.runner import DagsterOrchestrator
from tidemill.config import load_settings
from tidemill.domain.errors import TidemillError
try:
    sys.exit(DagsterOrchestrator(load_settings(), module={SMALL!r}).up())
except TidemillError as exc:
    sys.exit(str(exc))
"""


class Up:
    """`up` in a process of its own."""

    def __init__(self, settings: Settings, servers: Servers) -> None:
        self.home = settings.home
        self._variables = {
            "TIDEMILL_HOME": str(settings.home),
            "TIDEMILL_POSTGRES_DSN": servers.postgres_dsn.reveal(),
            "TIDEMILL_REDIS_URL": servers.redis_url.reveal(),
            "TIDEMILL_WEBSERVER_PORT": str(free_port(24_000)),
            "TIDEMILL_JUPYTER_PORT": str(free_port(25_000)),
        }
        self.process = self.start()
        self.printed: list[str] = []

    def start(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, **self._variables}
        return subprocess.Popen(
            [sys.executable, "-c", CODE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def read_until(self, text: str) -> str:
        """The line that holds `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if text in line:
                return line
        raise AssertionError("up ended:\n" + "".join(self.printed))

    def ask(self, address: str, body: object = None, **headers: str) -> tuple[int, str, dict[str, str]]:
        parts = urlsplit(address)
        assert parts.port is not None
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, sent)
        answer = connection.getresponse()
        got = answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return got


@pytest.fixture
def running(settings: Settings, own_servers: Servers) -> Iterator[Up]:
    up = Up(settings, own_servers)
    yield up
    tree = warden.descendants(up.process.pid)
    up.process.kill()
    up.process.wait()
    until(lambda: not any(psutil.pid_exists(pid) for pid in tree))
    assert up.process.stdout is not None
    up.process.stdout.close()
    if left := (settings.home / "dagster" / "up.lock").read_text():
        shutil.rmtree(left, ignore_errors=True)


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.05)


def test_up_serves_signs_in_restarts_what_dies_and_leaves_nothing(
    running: Up, settings: Settings, own_servers: Servers
) -> None:
    link = running.read_until("signin").split()[2]
    lab = running.read_until("JupyterLab").split()[1]
    running.read_until("Ctrl-C")
    web = link.partition("signin")[0]
    second = Up(settings, own_servers)  # it has its answer below, and looks for it meanwhile

    # JupyterLab wants its token.
    assert running.ask(lab.replace("/lab", "/api/status"))[0] == 200
    assert running.ask(lab.partition("/lab")[0] + "/api/status")[0] == 403

    # A stranger gets nothing; the link signs in; a cross-site POST is refused with the session at hand.
    query = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } jobs { name } } } } }"}
    assert running.ask(f"{web}graphql", query, Content_Type="application/json")[0] == 401
    cookie = running.ask(link)[2]["set-cookie"].partition(";")[0]
    assert (
        running.ask(f"{web}graphql", query, Content_Type="text/plain", Cookie=cookie, Origin="https://evil.example")[0] == 403
    )
    status, body, _ = running.ask(f"{web}graphql", query, Content_Type="application/json", Cookie=cookie)
    nodes = json.loads(body)["data"]["repositoriesOrError"]["nodes"]
    assert status == 200
    assert [(node["location"]["name"], "main" in [job["name"] for job in node["jobs"]]) for node in nodes] == [
        ("tidemill", True)
    ]
    assert subscription_acknowledged(web, cookie) == "connection_ack"

    # A second one for this home would tick every sensor twice.
    assert second.process.wait(60) == 1
    assert second.process.stdout is not None
    with second.process.stdout as printed:
        assert "already up" in printed.read()

    # What is killed comes back, and the session with it.
    (server,) = [process for process in psutil.Process(running.process.pid).children(recursive=True) if is_web(process)]
    server.kill()
    running.read_until("starting it again")
    until(lambda: answers(running, web, cookie))

    tree = warden.descendants(running.process.pid)
    folder = Path((settings.home / "dagster" / "up.lock").read_text())
    assert len(tree) >= 8
    assert folder.stat().st_mode & 0o077 == 0
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(40) == 0
    assert [pid for pid in tree if psutil.pid_exists(pid)] == []
    assert not [
        path for path in Path("/tmp").glob("tidemill-*") if str(path) in (settings.home / "dagster" / "up.lock").read_text()
    ]


def is_web(process: psutil.Process) -> bool:
    command = process.cmdline()
    return "orchestration.webserver" in command and not any(part.endswith("warden.py") for part in command)


def answers(up: Up, web: str, cookie: str) -> bool:
    try:
        return up.ask(f"{web}server_info", Cookie=cookie)[0] == 200
    except OSError:
        return False


def subscription_acknowledged(web: str, cookie: str) -> str:
    """First answer of Dagster's GraphQL WebSocket, through the gate."""
    address = f"{web.replace('http', 'ws')}graphql"
    headers = {"Cookie": cookie, "Origin": web.rstrip("/")}
    with websockets.sync.client.connect(address, subprotocols=["graphql-ws"], additional_headers=headers) as opened:  # type: ignore[list-item]
        opened.send(json.dumps({"type": "connection_init", "payload": {}}))
        return str(json.loads(opened.recv(timeout=20))["type"])


def test_nothing_is_left_of_an_up_that_is_killed(running: Up) -> None:
    until(lambda: len(warden.descendants(running.process.pid)) >= 8)
    tree = warden.descendants(running.process.pid)
    running.process.kill()
    running.process.wait()
    until(lambda: not any(psutil.pid_exists(pid) for pid in tree))
    folder = Path((running.home / "dagster" / "up.lock").read_text())
    assert folder.exists()
    running.process = running.start()
    until(lambda: not folder.exists())


def test_a_taken_port_gives_the_next_and_many_taken_ones_a_sentence() -> None:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        first.listen()
        taken = first.getsockname()[1]
        assert free_port(taken) > taken
        assert free_port(taken + 1, besides=taken + 1) > taken + 1
    sockets = []
    try:
        for port in range(26_000, 26_020):
            sockets.append(socket.create_server(("127.0.0.1", port)))
        with pytest.raises(ConfigError, match="26000 to 26019 are taken"):
            free_port(26_000)
    finally:
        for each in sockets:
            each.close()
