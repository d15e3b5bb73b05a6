"""The keeper: one process in a session of its own that owns both servers, as long as somebody uses them.

It starts what commands ask for, restarts what dies, and stops everything `linger` seconds after the last holder's lock fell, on
SIGTERM, or when the home is deleted. It is started by `tidemill.embedded`, which hands it the locked keeper.lock; a killed
keeper's servers are found by the next one through their locks and adopted. Run: `python -P -m tidemill.keeper.main < request`.
"""

import errno
import os
import secrets
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from tidemill.domain.errors import TidemillError, UnavailableError
from tidemill.keeper.accounts import Account
from tidemill.keeper.folder import SERVERS, Folder, Running, State, explanation
from tidemill.keeper.postgres import Postgres, failure
from tidemill.keeper.processes import Process, open_lock, processes_in, try_lock, unlock, wait_until
from tidemill.keeper.redis import Redis

Server = Postgres | Redis
LOOP_SECONDS = 0.1
# A server that dies more often than this within a minute will not be helped by one more start.
MOST_RESTARTS = 5
# Below the ranges from which systems take the ports of outgoing connections.
_PORTS = (15_000, 32_000)
_LARGEST_LOG = 8_000_000


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
        stat = os.fstat(self._holders)
        me = Process.of(os.getpid())
        if me is None:
            raise UnavailableError("This system does not tell when a process started. Mount /proc.")
        last = self._folder.state()
        self._state = State(lock=(stat.st_dev, stat.st_ino), keeper=me, ports=last.ports if last else {})
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
        """Stop both servers, and say so by taking the state away. Nothing is left running."""
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
        running = self._adopt(name) or self._launch(server)
        now = self._state
        self._state = msgspec.structs.replace(
            now, running={**now.running, name: running}, ports={**now.ports, name: running.port}
        )

    def _launch(self, server: Server) -> Running:
        """A new process, on the port of last time if that is free. A port that somebody took in between costs one more try."""
        server.prepare()
        log = self._folder.log_of(server.name)
        if log.exists() and log.stat().st_size > _LARGEST_LOG:
            log.replace(log.with_suffix(".log.1"))
        output = ""
        for port in (self._state.ports.get(server.name), None, None, None):
            chosen = port if port is not None and port_is_free(port) else free_port()
            written = log.stat().st_size if log.exists() else 0
            lock = open_lock(self._folder.lock_of(server.name))
            try_lock(lock)  # free: `_adopt` saw to it
            try:
                popen = server.launch(chosen, lock)
            finally:
                os.close(lock)  # from here on held by the server's processes alone
            process = Process.of(popen.pid)
            if process is not None:
                if self._becomes_ready(server, process, chosen):
                    popen.returncode = 0  # it is reaped and watched by pid; silences the destructor's warning
                    return Running(process, chosen)
                process.stop(*server.stop_steps)
            popen.wait()
            output = log.read_bytes()[written:].decode(errors="replace")
            if port_is_free(chosen):
                break
        raise failure(self._folder, output)

    def _becomes_ready(self, server: Server, process: Process, port: int) -> bool:
        wait_until(lambda: server.ready(process, port) or not process.alive(), server.ready_seconds)
        return server.ready(process, port)

    def _adopt(self, name: str) -> Running | None:
        """The server that a killed keeper left, if it is well; what is left of one that is not is killed."""
        if self._gone(name):
            return None
        server = self._servers[name]
        left = processes_in(self._folder.data_of(name))
        pid, port = server.survivor() or (0, 0)
        for process in left:
            if process.pid == pid:
                return Running(process, port)
        self._kill_rest(name)
        return None

    def _gone(self, name: str) -> bool:
        """Whether no process of this server lives, in this container or another."""
        lock = open_lock(self._folder.lock_of(name))
        try:
            return try_lock(lock)
        finally:
            os.close(lock)

    def _kill_rest(self, name: str) -> None:
        """Kill processes in the server's folder that nobody leads any more. UnavailableError when one cannot be reached."""
        for process in processes_in(self._folder.data_of(name)):
            process.send(signal.SIGKILL)
        if not wait_until(lambda: self._gone(name), 10.0):
            raise UnavailableError(
                f"Another process, perhaps in another container, runs {name} in {self._folder.root}. Stop it first."
            )

    def _stop(self, name: str) -> None:
        running = self._state.running.get(name)
        if running is not None:
            running.process.stop(*self._servers[name].stop_steps)
            reap(running.process.pid)
        if not wait_until(lambda: self._gone(name), 5.0):
            self._kill_rest(name)

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


def reap(pid: int) -> None:
    """Take away the zombie of a child; an adopted server is no child of ours."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the servers do: a closed connection's TIME_WAIT is no obstacle
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


def log(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()), text, file=sys.stderr, flush=True)


def report(answer: Report) -> None:
    """Tell the starter, which may be gone, and let go of its pipe."""
    with suppress(BrokenPipeError):
        os.write(1, msgspec.json.encode(answer))
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
