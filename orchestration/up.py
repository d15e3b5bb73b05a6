"""`tidemill up`: the code server, the web UI behind its gate, the daemon and JupyterLab, until ctrl-C.

What is supervised and why: docs/decisions/0011-what-up-supervises.md.
"""

import fcntl
import http.client
import json
import os
import secrets
import select
import shutil
import socket
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance

from orchestration import code_server
from orchestration.instance import PROJECT, dagster_home
from tidemill.access.passes import KEY_VARIABLE, LINKS_VARIABLE, Passes
from tidemill.config import Settings
from tidemill.domain.errors import ConfigError
from tidemill.durable import write_file
from tidemill.processes.supervisor import Service, StopRequested, Supervisor

_ROUND_SECONDS = 0.1
_PORTS_TRIED = 20


class Stack:
    """What `up` starts for one home: its ports, secrets and services. `folder`: private, on a short path, gone afterwards."""

    def __init__(self, settings: Settings, opened: DagsterInstance, module: str, folder: Path) -> None:
        self._logs, self._module, self._opened, self._folder = settings.home / "logs", module, opened, folder
        self.web_port = free_port(settings.webserver_port)
        self.lab_port = free_port(settings.jupyter_port, besides=self.web_port)
        self._key, self._lab_token = secrets.token_bytes(32), secrets.token_urlsafe(32)
        self._passes = Passes(self._key)
        self._socket, self._workspace = folder / "code.sock", folder / "workspace.yaml"
        self._began = time.time()
        code_server.write_workspace(self._workspace, self._socket)

    @property
    def web_address(self) -> str:
        return f"http://127.0.0.1:{self.web_port}/"

    @property
    def lab_address(self) -> str:
        return f"http://127.0.0.1:{self.lab_port}/lab?token={self._lab_token}"

    def sign_in_link(self) -> str:
        """A link that signs one browser in, once, within ten minutes."""
        return f"{self.web_address}signin?token={self._passes.make('link')}"

    def services(self) -> list[Service]:
        return [self._code_server(), self._web(), self._daemon(), self._lab()]

    def _code_server(self) -> Service:
        command = code_server.command(self._module, PROJECT, self._socket)
        return self._service("code-server", command, lambda: code_server.code_server_answers(self._socket))

    def _web(self) -> Service:
        command = [sys.executable, "-m", "orchestration.webserver", "--port", str(self.web_port)]
        command += ["--workspace", str(self._workspace), "--code-server", str(self._socket)]
        variables = {KEY_VARIABLE: self._key.hex(), LINKS_VARIABLE: json.dumps({"JupyterLab": self.lab_address})}
        return self._service("web", command, lambda: answers(self.web_port, "/", 401), variables)

    def _daemon(self) -> Service:
        command = [sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(self._workspace)]
        return self._service("daemon", command, self._daemon_beats)

    def _daemon_beats(self) -> bool:
        return any(beat.timestamp >= self._began for beat in self._opened.get_daemon_heartbeats().values())

    def _lab(self) -> Service:
        options = [
            f"--ServerApp.port={self.lab_port}",
            "--ServerApp.port_retries=0",
            "--ServerApp.ip=127.0.0.1",
            "--no-browser",
        ]
        options += [f"--ServerApp.root_dir={PROJECT}", f"--ServerApp.preferred_dir={PROJECT / 'notebooks'}"]
        options += ["--allow-root"] if os.geteuid() == 0 else []
        variables = {"JUPYTER_TOKEN": self._lab_token, "JUPYTER_RUNTIME_DIR": str(self._folder / "jupyter")}
        variables |= {"JUPYTER_CONFIG_PATH": os.pathsep.join([str(self._lab_config()), *_configured("JUPYTER_CONFIG_PATH")])}
        return self._service(
            "jupyterlab", [sys.executable, "-m", "jupyterlab", *options], lambda: answers(self.lab_port, "/api", 200), variables
        )

    def _lab_config(self) -> Path:
        """Defaults for JupyterLab, which a person's own settings override: it asks nobody for news or updates."""
        folder = self._folder / "jupyter-config"
        (folder / "labconfig").mkdir(parents=True, exist_ok=True)
        quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
        write_file(folder / "labconfig" / "default_setting_overrides.json", json.dumps(quiet).encode())
        return folder

    def _service(
        self, name: str, command: Sequence[str], ready: Callable[[], bool], variables: Mapping[str, str] | None = None
    ) -> Service:
        return Service(name=name, command=command, log=self._logs / f"{name}.log", ready=ready, variables=variables or {})


def up(settings: Settings, opened: DagsterInstance, *, module: str, open_browser: bool = False, as_json: bool = False) -> int:
    """Start everything in the environment of this process, print the addresses, wait for ctrl-C, stop everything.

    as_json: the addresses as one JSON object on stdout once all is ready; everything else goes to stderr.
    Returns the exit code. Raises ConfigError when this home is already up or no port is free, StopError when a service
    fails again and again.
    """
    with _private_folder(settings) as folder:
        stack = Stack(settings, opened, module, folder)
        with StopRequested() as stop, Supervisor(stack.services(), _remark if as_json else _say) as supervisor:
            while not (stop.received or supervisor.all_ready):
                supervisor.look()
                time.sleep(_ROUND_SECONDS)
            if not stop.received:
                _welcome(stack, open_browser, as_json)
            while not stop.received:
                supervisor.look()
                _answer_enter(stack)
            (_remark if as_json else _say)("Stopping …")
    return 0


def _configured(variable: str) -> list[str]:
    return [value] if (value := os.environ.get(variable)) else []


def _welcome(stack: Stack, open_browser: bool, as_json: bool) -> None:
    link = stack.sign_in_link()
    if as_json:
        _say(json.dumps({"dagster": stack.web_address, "sign_in": link, "jupyterlab": stack.lab_address}))
    else:
        _say(f"Dagster      {stack.web_address}")
        _say(f"  sign in    {link}   (once, within 10 minutes)")
        _say(f"JupyterLab   {stack.lab_address}")
        _say("Enter: a new sign-in link. Ctrl-C: stop everything.")
    if open_browser:
        webbrowser.open(link)


def _answer_enter(stack: Stack) -> None:
    """Wait one round; a new link for a person who presses Enter."""
    if not sys.stdin.isatty():
        time.sleep(_ROUND_SECONDS)
        return
    ready, _, _ = select.select([sys.stdin], [], [], _ROUND_SECONDS)
    if ready and sys.stdin.readline():
        _say(f"  sign in    {stack.sign_in_link()}")


def _say(text: str) -> None:
    print(text, flush=True)


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _private_folder(settings: Settings) -> Iterator[Path]:
    """A folder for sockets, outside the home: their paths may have about 100 characters. One at a time for a home, since a
    second daemon would tick every sensor and schedule twice; what a killed predecessor left is removed.
    """
    with (dagster_home(settings) / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(f"Tidemill is already up for {settings.home}. Stop it there, or set TIDEMILL_HOME.") from exc
        lock.seek(0)
        if left := lock.read().strip():
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.gettempdir(), f"tidemill-{secrets.token_hex(8)}")
        lock.truncate(0)
        lock.write(str(folder))  # first, so that none is ever left unknown
        lock.flush()
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.truncate(0)


def free_port(wanted: int, besides: int = 0) -> int:
    """`wanted`, or the next port on which nobody listens. ConfigError when many in a row are taken."""
    for port in range(wanted, wanted + _PORTS_TRIED):
        if port != besides and _is_free(port):
            return port
    last = wanted + _PORTS_TRIED - 1
    raise ConfigError(
        f"The ports {wanted} to {last} are taken. Set TIDEMILL_WEBSERVER_PORT or TIDEMILL_JUPYTER_PORT to a free one."
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int, path: str, status: int) -> bool:
    """Whether a server on this port of the loopback interface answers `path` with `status`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == status
    except OSError:
        return False
    finally:
        connection.close()
