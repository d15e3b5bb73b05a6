"""The keeper: one process in a session of its own that owns both servers, as long as somebody uses them.

It starts what commands ask for, restarts what dies, and stops everything `linger` seconds after the last holder's lock fell, on
SIGTERM, or when the home is deleted. It is started by `tidemill.embedded`, which hands it the locked keeper.lock; a killed
keeper's servers are found by the next one through their locks and adopted. Run: `python -P -m tidemill.keeper.main < request`.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from tidemill.domain.errors import TidemillError, UnavailableError
from tidemill.keeper.accounts import Account
from tidemill.keeper.failures import explanation
from tidemill.keeper.folder import SERVERS, Folder, KeeperState
from tidemill.keeper.launching import Server, adopt, kill_rest, launch, reap
from tidemill.keeper.postgres import Postgres
from tidemill.keeper.processes import Process, open_lock, try_lock, unlock, wait_until
from tidemill.keeper.redis import Redis

LOOP_SECONDS = 0.1
# A server that dies more often than this within a minute will not be helped by one more start.
MOST_RESTARTS = 5
# For a server whose data were deleted: it could not write what a clean stop writes.
_AT_ONCE = ((signal.SIGQUIT, 5.0),)


class Request(msgspec.Struct, frozen=True):
    """What the starter says on standard input. lock: the inherited descriptor of keeper.lock, held. linger: in seconds."""

    home: str
    root: str
    lock: int
    linger: float


class Report(msgspec.Struct, frozen=True):
    """What the keeper answers, once, on standard output: nothing, or the name and text of the error for which it gave up."""

    error: str = ""
    text: str = ""


class Keeper:
    def __init__(self, request: Request) -> None:
        self._linger = request.linger
        self._folder = Folder(Path(request.root))
        account = Account.of_servers()
        self._servers: dict[str, Server] = {"postgres": Postgres(self._folder, account), "redis": Redis(self._folder, account)}
        self._holders = open_lock(self._folder.holders)
        self._locks = {name: open_lock(self._folder.lock_of(name)) for name in SERVERS}
        stat = os.fstat(self._holders)
        me = Process.of(os.getpid())
        if me is None:
            raise UnavailableError("This system does not say when a process started. Mount /proc.")
        last = self._folder.state()
        self._state = KeeperState(lock=(stat.st_dev, stat.st_ino), keeper=me, ports=last.ports if last else {})
        self._restarts: list[float] = []
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker)
        self._told_to_stop = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell_to_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake

    def _tell_to_stop(self, *_: object) -> None:
        self._told_to_stop = True

    def open(self) -> None:
        """Start or adopt what is wanted or still alive. If one of them cannot start, nothing is left running."""
        try:
            for name in SERVERS:
                if self._folder.wanted(name).exists() or not self._gone(name):
                    self._start(name)
            self._publish()
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Watch until nobody needs the servers any more, then stop them."""
        unused_since: float | None = None
        try:
            while not self._told_to_stop:
                self._restart_dead()
                self._start_wanted()
                if self._deleted():
                    return
                if not try_lock(self._holders):
                    unused_since = None
                else:
                    unused_since = unused_since or time.monotonic()
                    if time.monotonic() - unused_since >= self._linger:
                        return  # with the lock held: who comes now waits until the servers are gone, and starts them again
                    unlock(self._holders)
                self._sleep()
        finally:
            self.close()

    def close(self) -> None:
        """Stop both servers, and say so in the state. Nothing is left running."""
        try_lock(self._holders)
        for name in reversed(SERVERS):
            self._stop(name)
            if self._at_home():
                self._folder.wanted(name).unlink(missing_ok=True)
        if self._at_home():
            # The ports are kept for the next time: a client that reconnects by itself finds its server again.
            self._state = msgspec.structs.replace(self._state, running={})
            with suppress(OSError):
                self._folder.write_state(self._state)

    def _start(self, name: str) -> None:
        server = self._servers[name]
        running = adopt(server, self._folder) or launch(server, self._folder, self._state.ports.get(name))
        now = self._state
        self._state = msgspec.structs.replace(
            now, running={**now.running, name: running}, ports={**now.ports, name: running.port}
        )

    def _stop(self, name: str) -> None:
        running = self._state.running.get(name)
        if running is not None:
            running.process.stop(*(_AT_ONCE if self._deleted() else self._servers[name].stop_steps))
            reap(running.process.pid)
        if not wait_until(lambda: self._gone(name), 5.0) and self._at_home():
            kill_rest(self._folder, name)

    def _gone(self, name: str) -> bool:
        """Whether no process of this server lives; also when the folder is not where it was."""
        if not try_lock(self._locks[name]):
            return False
        unlock(self._locks[name])
        return True

    def _restart_dead(self) -> None:
        dead = [name for name, running in self._state.running.items() if not running.process.alive()]
        for name in dead:
            reap(self._state.running[name].process.pid)
            self._restarts = [moment for moment in self._restarts if moment > time.monotonic() - 60.0]
            self._restarts.append(time.monotonic())
            log(f"{name} died")
            rest = {other: running for other, running in self._state.running.items() if other != name}
            self._state = msgspec.structs.replace(self._state, running=rest)
            if not self._at_home():
                raise UnavailableError(
                    f"{self._folder.root} was moved while it was in use; the next command starts {name} where it is now."
                )
            self._publish()
            if len(self._restarts) > MOST_RESTARTS:
                raise UnavailableError(f"{name} died {MOST_RESTARTS + 1} times in a minute.")
            self._start(name)
            self._publish()

    def _start_wanted(self) -> None:
        for name in SERVERS:
            if name in self._state.running or not self._folder.wanted(name).exists():
                continue
            try:
                self._start(name)
            except (TidemillError, OSError) as exc:
                self._folder.wanted(name).unlink(missing_ok=True)
                text = explanation(exc, self._folder.root) if isinstance(exc, OSError) else str(exc)
                self._state = msgspec.structs.replace(self._state, refused=self._state.refused + 1, refusal=text)
            self._publish()

    def _publish(self) -> None:
        self._folder.write_state(self._state)

    def _at_home(self) -> bool:
        """Whether the folder is still where it was; after `mv` its path may belong to another home."""
        try:
            stat = os.stat(self._folder.holders)
        except FileNotFoundError:
            return False
        return (stat.st_dev, stat.st_ino) == self._state.lock

    def _deleted(self) -> bool:
        return os.fstat(self._holders).st_nlink == 0

    def _sleep(self) -> None:
        """Until something happens to a child, a signal comes, or it is time to look at the locks."""
        if select.select([self._woken], [], [], LOOP_SECONDS)[0]:
            os.read(self._woken, 4096)


def log(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()), text, file=sys.stderr, flush=True)


def report(answer: Report) -> None:
    """Tell the starter, which may be gone. It reads until the pipe closes: now, or with this process after a failure."""
    with suppress(BrokenPipeError):
        os.write(1, msgspec.json.encode(answer))
    if answer.error:
        return
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 0)
    os.close(null)


def main() -> int:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    if os.fork() != 0:
        os._exit(0)  # no child of the starter's: who kills that one's process tree does not kill the servers of all others
    os.set_inheritable(request.lock, False)
    os.chdir("/")
    os.umask(0o077)
    try:
        keeper = Keeper(request)
        keeper.open()
    except TidemillError as exc:
        report(Report(type(exc).__name__, str(exc)))
        return 1
    except OSError as exc:
        report(Report("StopError", explanation(exc, Path(request.home))))
        return 1
    report(Report())
    try:
        keeper.run()
    except (TidemillError, OSError) as exc:
        log(f"gave up: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
