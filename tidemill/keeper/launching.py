"""One server brought up: a new process on a free port, or the one that a killed keeper left."""

import errno
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from tidemill.domain.errors import TidemillError, UnavailableError
from tidemill.keeper.folder import Folder, Running
from tidemill.keeper.processes import Process, open_lock, processes_in, try_lock, wait_until

# Below the ranges from which systems take the ports of outgoing connections.
_PORTS = (15_000, 32_000)
_TRIES = 4
_LARGEST_LOG = 8_000_000


class Server(Protocol):
    """What Postgres and Redis have in common. ready_seconds: how long a start may take."""

    @property
    def name(self) -> str: ...
    @property
    def stop_steps(self) -> tuple[tuple[signal.Signals, float], ...]: ...
    @property
    def ready_seconds(self) -> float: ...

    def prepare(self) -> None:
        """Leave everything as a start needs it. No process of this server lives."""
        ...

    def launch(self, port: int, keep: int) -> "subprocess.Popen[bytes]":
        """Start it on this port; it and its children inherit the descriptor `keep`."""
        ...

    def ready(self, process: Process, port: int) -> bool:
        """Whether this process accepts our connections on this port."""
        ...

    def survivor(self) -> tuple[int, int] | None:
        """Pid and port of a well server that an earlier keeper may have left."""
        ...

    def failure(self, output: str) -> TidemillError:
        """The error for what it wrote before it gave up."""
        ...


def launch(server: Server, folder: Folder, last_port: int | None) -> Running:
    """A new process, on the port of last time if that is free; a port that somebody takes in between costs one more try.

    Raises what `Server.prepare` and `Server.failure` name; then the process is gone.
    """
    server.prepare()
    output = ""
    for _ in range(_TRIES):
        port = last_port if last_port is not None and port_is_free(last_port) else free_port()
        running, output = _launch_on(port, server, folder)
        if running is not None:
            return running
        if port_is_free(port):
            break
    raise server.failure(output)


def _launch_on(port: int, server: Server, folder: Folder) -> tuple[Running | None, str]:
    """The running server, or None and what it wrote."""
    log = folder.log_of(server.name)
    written = _rotate(folder, server.name)
    with _locked(folder, server.name) as lock:
        popen = server.launch(port, lock)
    process = Process.of(popen.pid)
    if process is not None:
        wait_until(lambda: server.ready(process, port) or not process.alive(), server.ready_seconds)
        if server.ready(process, port):
            popen.returncode = 0  # from here on it is watched and reaped by pid; this silences the destructor's warning
            return Running(process, port), ""
        process.stop(*server.stop_steps)
    popen.wait()
    return None, log.read_bytes()[written:].decode(errors="replace")


@contextmanager
def _locked(folder: Folder, name: str) -> Iterator[int]:
    """The server's lock, to be inherited: when ours is closed, its processes alone hold it."""
    lock = open_lock(folder.lock_of(name))
    try:
        if not wait_until(lambda: try_lock(lock), 5.0):  # free since `adopt`, but for somebody who looks whether it is
            raise UnavailableError(f"{folder.lock_of(name)} is held by another process. Try again.")
        yield lock
    finally:
        os.close(lock)


def adopt(server: Server, folder: Folder) -> Running | None:
    """The server that a killed keeper left, if it is well; what is left of one that is not is killed."""
    if gone(folder, server.name):
        return None
    pid, port = server.survivor() or (0, 0)
    for process in processes_in(folder.data_of(server.name)):
        if process.pid == pid:
            return Running(process, port)
    kill_rest(folder, server.name)
    return None


def gone(folder: Folder, name: str) -> bool:
    """Whether no process of this server lives, in this container or another."""
    lock = open_lock(folder.lock_of(name))
    try:
        return try_lock(lock)
    finally:
        os.close(lock)


def kill_rest(folder: Folder, name: str) -> None:
    """Kill the processes in the server's folder; crash recovery does the rest. UnavailableError when one cannot be reached."""
    for process in processes_in(folder.data_of(name)):
        process.send(signal.SIGKILL)
        reap(process.pid)
    if not wait_until(lambda: gone(folder, name), 10.0):
        raise UnavailableError(f"Another process, perhaps in another container, runs {name} in {folder.root}. Stop it first.")


def reap(pid: int) -> None:
    """Take away the zombie of a child; an adopted server is no child of ours."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _rotate(folder: Folder, name: str) -> int:
    """Put a log aside that has grown large; length in bytes of the one that is there now."""
    log = folder.log_of(name)
    if not log.exists():
        return 0
    if log.stat().st_size > _LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
        return 0
    return log.stat().st_size


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def free_port() -> int:
    """A loopback port that nobody listens on, chosen at random so that homes that start at once do not collide."""
    while not port_is_free(port := _PORTS[0] + secrets.randbelow(_PORTS[1] - _PORTS[0])):
        pass
    return port
