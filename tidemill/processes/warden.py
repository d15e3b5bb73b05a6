"""Runs one service and lets nothing of it outlive its owner: `python warden.py GRACE_SECONDS COMMAND…`, standard library only.

The owner holds the write end of this process's standard input. When that closes, because the owner asks for the end or died by
whatever signal, the service gets SIGTERM, then its whole tree SIGKILL. Children that made sessions of their own (Jupyter's
kernels, Dagster's run workers) are found too: on Linux orphans come back to this process, which is their subreaper.
"""

import ctypes
import os
import select
import signal
import subprocess  # nosec B404  # the command comes as a list from our own supervisor
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_POLL_SECONDS = 0.05


def descendants(root: int) -> set[int]:
    """Process ids of everything that `root` started, directly or not."""
    parents = _parents()
    found: set[int] = set()
    level = {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return found


def _parents() -> dict[int, int]:
    """Parent of every process that can be seen."""
    if not Path("/proc/self/stat").exists():
        answer = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)  # nosec B603
        return {int(pid): int(parent) for pid, parent in (line.split() for line in answer.stdout.splitlines())}
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:  # the name, in parentheses, may hold spaces and parentheses
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    return parents


def _send(pids: set[int], kind: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, kind)
        except ProcessLookupError:
            continue


def _reap() -> None:
    """Collect orphans that ended, so that they do not count as alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    """The service. It must not hold the pipe that says whether the owner lives; on Linux it dies with this process."""
    if sys.platform != "linux":
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)  # nosec B603
    control = ctypes.CDLL(None).prctl
    control(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    warden = os.getpid()
    return subprocess.Popen(  # nosec B603
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: _die_with(warden, control)
    )


def _die_with(warden: int, control: Callable[..., int]) -> None:
    """In the service before it is one. Where the warden died before it was asked, nobody sends the signal any more."""
    control(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != warden:
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_end(service: "subprocess.Popen[bytes]") -> None:
    """Until the service ends, the owner lets go, or a signal asks for the end."""
    asked: list[int] = []
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, lambda number, _: asked.append(number))
    owner = sys.stdin.fileno()
    while service.poll() is None and not asked:
        ready, _, _ = select.select([owner], [], [], 0.2)
        if ready and not os.read(owner, 1):
            return


def _stop(service: "subprocess.Popen[bytes]", grace: float) -> None:
    """Ask the service, then end what is left of its tree."""
    if service.poll() is None:
        service.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while service.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    while left := descendants(os.getpid()):
        _send(left, signal.SIGKILL)
        service.poll()
        _reap()
        time.sleep(_POLL_SECONDS)


def main(arguments: list[str]) -> int:
    """Exit code of the service; of one that was stopped, 0."""
    grace, command = float(arguments[0]), arguments[1:]
    service = _start(command)
    _wait_for_end(service)
    ended = service.poll()
    _stop(service, grace)
    if ended is None:
        return 0
    return ended if ended >= 0 else 128 - ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
