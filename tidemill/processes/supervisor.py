"""Keeps services running: starts them under wardens, waits until they answer, restarts what dies, stops everything."""

import os
import signal
import subprocess  # nosec B404  # starts our own wardens, never a shell
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.domain.errors import StopError

_WARDEN = Path(__file__).with_name("warden.py")
_KEPT_LOG_BYTES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Service:
    """What to run, and how to see that it answers.

    ready: called repeatedly after a start until it is true. seconds: how long that may take. grace: seconds between SIGTERM and
    SIGKILL.
    """

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[], bool]
    variables: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 90.0
    grace: float = 8.0


@dataclass(frozen=True)
class Backoff:
    """Restarts wait `first` seconds, then twice as long each time up to `most`; after `tries` of them in a row it is enough.

    A service that ran for `healthy` seconds starts from the beginning.
    """

    first: float = 1.0
    most: float = 30.0
    tries: int = 5
    healthy: float = 60.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        return float(min(self.most, self.first * 2 ** (failures - 1)))


class _Running:
    """One service: its process now, and how often it failed in a row."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.failures = 0
        self.ready = False
        self.process: subprocess.Popen[bytes] | None = None
        self.started = self.resume_at = 0.0

    def start(self, now: float) -> None:
        log = self.service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _KEPT_LOG_BYTES:
            log.replace(log.with_suffix(".1.log"))
        command = [sys.executable, "-I", "-S", str(_WARDEN), str(self.service.grace), *self.service.command]
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # nosec B603  # a list, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.service.variables},
                start_new_session=True,  # the terminal's ctrl-C is for us to handle
            )
        self.started, self.ready = now, False

    def let_go(self) -> None:
        """Close the pipe: the warden stops the service."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def wait(self) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(self.service.grace + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        """The last line that the service wrote."""
        try:
            lines = self.service.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:300] if lines else ""


class Supervisor:
    """Runs services until told to stop. `tell` gets one sentence about whatever a person should know."""

    def __init__(
        self,
        services: Sequence[Service],
        tell: Callable[[str], None],
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = [_Running(service) for service in services]
        self._tell, self._backoff, self._clock = tell, backoff or Backoff(), clock

    def __enter__(self) -> "Supervisor":
        """Start all of them. They are not ready yet."""
        for running in self._running:
            running.start(self._clock())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all of them, at the same time, with everything that they started."""
        for running in self._running:
            running.let_go()
        for running in self._running:
            running.wait()

    @property
    def all_ready(self) -> bool:
        return all(running.ready for running in self._running)

    def pids(self) -> dict[str, int]:
        """Process id of each service's warden."""
        return {running.service.name: running.process.pid for running in self._running if running.process is not None}

    def look(self) -> None:
        """One round: who is ready, who died, who is due for a restart. StopError when one fails again and again."""
        for running in self._running:
            self._look_at(running)

    def _look_at(self, running: _Running) -> None:
        now = self._clock()
        if running.process is None:
            if now >= running.resume_at:
                running.start(now)
        elif running.process.poll() is not None:
            self._died(running, now, f"{running.service.name} ended with code {running.process.returncode}")
        elif not running.ready and running.service.ready():
            running.ready = True
        elif not running.ready and now - running.started > running.service.seconds:
            running.let_go()
            running.wait()
            self._died(running, now, f"{running.service.name} did not answer within {running.service.seconds:.0f} s")

    def _died(self, running: _Running, now: float, what: str) -> None:
        running.let_go()
        if now - running.started > self._backoff.healthy:
            running.failures = 0
        running.failures += 1
        running.process, running.ready = None, False
        detail = f"Its last line: {running.last_words()!r}; all of it is in {running.service.log}."
        if running.failures > self._backoff.tries:
            raise StopError(f"{what}, {running.failures} times in a row. {detail}")
        pause = self._backoff.pause(running.failures)
        running.resume_at = now + pause
        self._tell(f"{what}; starting it again in {pause:.0f} s. {detail}")


class StopRequested:
    """Set by SIGINT, SIGTERM or SIGHUP while the block lasts; the previous handlers come back after it."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequested":
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _note(self, *_: object) -> None:
        self.received = True
