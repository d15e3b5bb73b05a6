"""Processes known by pid and start time, never by name; locks that fall with their holder, however it dies."""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

POLL_SECONDS = 0.002


class Process(msgspec.Struct, frozen=True):
    """One process for ever: a pid alone may belong to somebody else tomorrow."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has this pid now; None when there is none, or only its zombie."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still lives."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn, waiting its seconds for the process to go; SIGKILL at the end. Returns when it is gone."""
        for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
            self.send(number)
            if wait_until(lambda: not self.alive(), seconds):
                return


def start_time(pid: int) -> str | None:
    """When the process with this pid started, as a text to compare; None when it does not run (a zombie does not)."""
    if sys.platform != "linux":
        return _start_time_elsewhere(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets may itself hold brackets and spaces: fields count from the last one.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _start_time_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def processes_in(folder: Path) -> list[Process]:
    """Live processes whose working directory is `folder`. A server works in its data folder, so this finds its remains."""
    import psutil

    found = []
    wanted = str(folder.resolve())
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == wanted and (known := Process.of(process.pid)) is not None:
                found.append(known)
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until `condition()`; False when it did not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def open_lock(path: Path) -> int:
    """Descriptor of a lock file, made if missing, readable by its owner alone; children do not inherit it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock if that is possible at once."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)
