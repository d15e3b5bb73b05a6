"""A real Postgres and a real Redis, found or started: `with servers(settings) as found: …`.

Addresses from the settings are used as they are. What they leave out comes from the home's own servers, which one keeper
process (`tidemill.keeper.main`) starts, shares among all commands and stops `keeper_linger` seconds after the last of them is
gone, however it went. To attach to running ones takes a lock, two small files and two connects; only a start imports more.
"""

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tidemill.config import Secret, Settings
from tidemill.domain.errors import ConfigError, DeadlineError, IntegrityError, StopError, TidemillError, UnavailableError
from tidemill.keeper.failures import explained
from tidemill.keeper.folder import SERVERS, Folder, KeeperState, existing, locate
from tidemill.keeper.processes import open_lock, try_lock

# Crash recovery of 2 GB of log on a slow disk ends well within this.
START_SECONDS = 330.0
_ERRORS: Mapping[str, type[TidemillError]] = {
    kind.__name__: kind for kind in (StopError, ConfigError, IntegrityError, UnavailableError, DeadlineError)
}


class Servers(msgspec.Struct, frozen=True):
    """Where Postgres and Redis are, for this process and its children. `embedded`: at least one of them is the home's own."""

    postgres_dsn: Secret
    redis_url: Secret
    embedded: bool


@contextmanager
def servers(settings: Settings) -> Iterator[Servers]:
    """The servers of these settings, running, until the block is left.

    Raises StopError (disk full, folder not writable), ConfigError (programs missing, folder of another user) or
    UnavailableError (a server does not start), each with a sentence that says what to do.
    """
    given = {"postgres": settings.postgres_dsn, "redis": settings.redis_url}
    needed = [name for name in SERVERS if given[name] is None]
    if settings.postgres_dsn is not None and settings.redis_url is not None:
        yield Servers(settings.postgres_dsn, settings.redis_url, embedded=False)
        return
    with explained(settings.home):
        folder = locate(settings.home)
        hold = open_lock(folder.holders)
    try:
        with explained(settings.home):
            state = _attach(folder, settings, hold, needed)
            addresses = _addresses(folder, state)
        yield Servers(given["postgres"] or addresses["postgres"], given["redis"] or addresses["redis"], embedded=True)
    finally:
        os.close(hold)
        _leave_to_keeper(folder, settings)


def stop(settings: Settings, seconds: float = 90.0) -> bool:
    """Stop the home's own servers now instead of after the linger. False when another command still uses them.

    Returns True when nothing runs any more, also when nothing ran before.
    """
    folder = existing(settings.home)
    if folder is None:
        return True
    with explained(settings.home):
        hold = open_lock(folder.holders)
    try:
        if not try_lock(hold):
            return False
        with explained(settings.home):
            if _orphaned(folder):
                _launch(folder, settings)
            state = folder.state()
            if state is not None and _is_of(folder, state):
                state.keeper.send(signal.SIGTERM)
            return _wait_for_lock(folder, seconds)
    finally:
        os.close(hold)


def _wait_for_lock(folder: Folder, seconds: float) -> bool:
    """Until no keeper lives."""
    lock = open_lock(folder.keeper)
    try:
        deadline = time.monotonic() + seconds
        while not try_lock(lock):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True
    finally:
        os.close(lock)


def _attach(folder: Folder, settings: Settings, hold: int, needed: list[str]) -> KeeperState:
    """Hold the servers, and see to it that they run."""
    deadline = time.monotonic() + START_SECONDS
    _lock_shared(hold, deadline, folder)
    before = folder.state()
    refused = before.refused if before else 0
    while True:
        state = folder.state()
        if state is not None and _is_of(folder, state) and state.keeper.alive():
            missing = [name for name in needed if name not in state.running]
            if not missing and all(_listens(state.running[name].port) for name in needed):
                return state
            if missing and state.refused > refused:
                raise UnavailableError(state.refusal)
            _want(folder, missing)
        else:
            _want(folder, needed)
            _launch(folder, settings)
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"The servers of {settings.home} did not start within {START_SECONDS:.0f} s. Look at the logs in {folder.root}."
            )
        time.sleep(0.002)


def _lock_shared(hold: int, deadline: float, folder: Folder) -> None:
    """A keeper that is stopping holds the lock until it has stopped."""
    while not try_lock(hold, shared=True):
        if time.monotonic() > deadline:
            raise DeadlineError(f"The servers in {folder.root} have been shutting down for too long. Look at the logs there.")
        time.sleep(0.002)


def _is_of(folder: Folder, state: KeeperState) -> bool:
    """Whether the state was written for this folder and not for one that it was copied from."""
    stat = os.stat(folder.holders)
    return (stat.st_dev, stat.st_ino) == state.lock


def _listens(port: int) -> bool:
    """The keeper notices a death within moments; this notices it now."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2.0).close()
    except OSError:
        return False
    return True


def _want(folder: Folder, names: list[str]) -> None:
    for name in names:
        if not folder.wanted(name).exists():
            folder.want(name)


def _launch(folder: Folder, settings: Settings) -> None:
    """Start a keeper and wait for its word, unless somebody else is at it; the lock that settles this becomes the keeper's."""
    lock = open_lock(folder.keeper)
    try:
        if not try_lock(lock):
            return
        request = {"home": str(settings.home), "root": str(folder.root), "lock": lock, "linger": settings.keeper_linger}
        answer = _word_of_keeper(folder, msgspec.json.encode(request), lock)
    finally:
        os.close(lock)
    if not answer:
        last = folder.log_of("keeper").read_text(errors="replace").strip().rpartition("\n")[2] or "it did not say why"
        raise UnavailableError(f"The keeper of the servers in {folder.root} died during its start: {last}. Try again.")
    said: dict[str, str] = msgspec.json.decode(answer, type=dict[str, str])
    if said["text"]:
        raise _ERRORS.get(said["error"], UnavailableError)(said["text"])


def _word_of_keeper(folder: Folder, request: bytes, lock: int) -> bytes:
    """Run the keeper's process, which detaches itself, and read what it reports; empty when it died before it could."""
    import subprocess

    command = [sys.executable, "-P", "-m", "tidemill.keeper.main"]
    with (
        open(folder.log_of("keeper"), "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True, pass_fds=(lock,)
        ) as keeper,
    ):
        if keeper.stdin is None or keeper.stdout is None:
            return b""
        with suppress(BrokenPipeError):
            keeper.stdin.write(request)
            keeper.stdin.close()
        with selectors.DefaultSelector() as selector:
            selector.register(keeper.stdout, selectors.EVENT_READ)
            if not selector.select(START_SECONDS):
                raise DeadlineError(
                    f"The servers in {folder.root} did not start within {START_SECONDS:.0f} s. Look at the logs there."
                )
        return keeper.stdout.read()


def _addresses(folder: Folder, state: KeeperState) -> dict[str, Secret]:
    passwords = folder.credentials()
    if passwords is None:
        raise IntegrityError(
            f"{folder.root}/credentials.json is missing while the servers run. "
            "Once they have stopped, the next command makes a new one."
        )
    made = {}
    if "postgres" in state.running:
        made["postgres"] = Secret(
            f"postgresql://tidemill:{passwords.postgres}@127.0.0.1:{state.running['postgres'].port}/tidemill"
        )
    if "redis" in state.running:
        made["redis"] = Secret(f"redis://:{passwords.redis}@127.0.0.1:{state.running['redis'].port}/0")
    return made


def _leave_to_keeper(folder: Folder, settings: Settings) -> None:
    """If the keeper was killed while we held its servers, nobody would stop them: start one, which adopts them."""
    with suppress(OSError, TidemillError):
        if _orphaned(folder):
            _launch(folder, settings)


def _orphaned(folder: Folder) -> bool:
    """Whether servers run that no keeper watches."""
    state = folder.state()
    if state is None or (_is_of(folder, state) and state.keeper.alive()):
        return False
    return any(_is_held(folder.lock_of(name)) for name in SERVERS)


def _is_held(path: Path) -> bool:
    lock = open_lock(path)
    try:
        return not try_lock(lock)
    finally:
        os.close(lock)
