"""Commands that use embedded servers, as processes of their own that a test can watch and kill."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tidemill.config import Secret, Settings
from tidemill.keeper.folder import SERVERS, Folder, KeeperState, existing
from tidemill.keeper.processes import processes_in

_SCRIPT = """
import sys
from tidemill.config import load_settings
from tidemill.domain.errors import TidemillError
from tidemill.embedded import servers
try:
    with servers(load_settings()) as found:
        print(found.postgres_dsn.reveal(), found.redis_url.reveal(), *sorted(sys.modules), flush=True)
        sys.stdin.read()
except TidemillError as exc:
    print(type(exc).__name__, exc, sep=": ", file=sys.stderr)
    sys.exit(1)
"""


class Holder:
    """A process that runs `with servers(…)` until it is left or killed."""

    def __init__(
        self,
        settings: Settings,
        *,
        python: str = sys.executable,
        user: int | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDEMILL_")}
        environment |= {
            "TIDEMILL_HOME": str(settings.home),
            "TIDEMILL_KEEPER_LINGER": str(settings.keeper_linger),
            **(more or {}),
        }
        identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        self.process = subprocess.Popen(
            [python, "-c", _SCRIPT],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            **identity,  # type: ignore[call-overload]  # user, group and extra_groups, or nothing
        )
        self._words: list[str] | None = None

    def addresses(self) -> tuple[Secret, Secret]:
        """Addresses of Postgres and Redis, once it has them."""
        words = self._answer()
        return Secret(words[0]), Secret(words[1])

    def modules(self) -> list[str]:
        """What was imported when it had attached."""
        return self._answer()[2:]

    def error(self) -> str:
        """What it said when it failed, name of the error first."""
        _, text = self.process.communicate(timeout=120)
        assert self.process.returncode == 1, text
        return text.strip()

    def leave(self) -> None:
        """Leave the block, and end."""
        _, text = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, text

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)

    def _answer(self) -> list[str]:
        if self._words is None:
            assert self.process.stdout is not None
            assert select.select([self.process.stdout], [], [], 120)[0], "no servers within two minutes"
            self._words = self.process.stdout.readline().split()
            assert self._words, self.process.communicate(timeout=60)[1]
        return self._words


def folder_of(settings: Settings) -> Folder:
    folder = existing(settings.home)
    assert folder is not None
    return folder


def state_of(settings: Settings) -> KeeperState:
    state = folder_of(settings).state()
    assert state is not None
    return state


def processes_of(settings: Settings) -> list[psutil.Process]:
    """The keeper and all processes of both servers that live."""
    folder = existing(settings.home)
    if folder is None:
        return []
    state = folder.state()
    alive = [process.pid for name in SERVERS for process in processes_in(folder.data_of(name))]
    if state is not None and state.keeper.alive():
        alive.append(state.keeper.pid)
    found = []
    for pid in alive:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0, every: float = 0.005) -> None:
    """Wait until something is so; fails with `what` when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(every)


def wait_until_stopped(settings: Settings) -> None:
    wait_for(lambda: not processes_of(settings), "the stop of keeper and servers", every=0.05)  # it looks at all processes


def readable_python() -> str | None:
    """A Python 3.11 that another user may run; the one of this test may lie below /root."""
    for python in (sys.executable, "/usr/bin/python3.11", "/usr/local/bin/python3.11"):
        command = [python, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"]
        try:
            if (
                Path(python).exists()
                and subprocess.run(command, user=65534, group=65534, extra_groups=[], check=False).returncode == 0
            ):
                return python
        except PermissionError:
            continue
    return None
