"""A process of its own for a user's functions: bounded in time and memory, without files, network and processes.

One clean process forks itself for every call; it is started at the first, and again after one that had to be stopped. Frames go
in and out as Arrow streams over pipes. What it refuses is said in `guard.py`: a guard against mistakes, no wall against malice.

Functions of engines and strategies run in forks of another such process, which is bounded in time alone and has the rights of
the user.
"""

import atexit
import os
import signal
import subprocess  # nosec B404  # starts this interpreter with a list of arguments
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from tidemill.domain.errors import FunctionError, InputError, UnavailableError
from tidemill.provenance import ROOT
from tidemill.user_modules.values import packed, unpacked
from tidemill.user_modules.wire import READY, Answer, Limits, Request, described, receive, send

if TYPE_CHECKING:
    import polars as pl

# To start Python and to import takes long on a busy machine; it is not part of a call.
_START_SECONDS = 120.0
# So often it is looked whether a process that owes an answer is still there.
_LOOK_SECONDS = 0.2
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "POLARS_MAX_THREADS")


class Sandbox:
    """Serves one call at a time, within its limits."""

    def __init__(self, limits: Limits) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._limits = limits
        self._lock = threading.Lock()
        self._prepared: set[tuple[str, bool]] = set()  # texts whose libraries the process has, and whether with frames

    def declare(self, request: Request) -> bytes:
        """Run the file once; what it declares (see `declared.py`). InputError when it fails, takes too long or wants more than
        it may.
        """
        return self._ask(request, b"")[1]

    def call(self, request: Request, bars: "pl.DataFrame") -> "pl.DataFrame":
        """What a function of features or of a label answers for `bars`: one row for each bar, in their order.

        InputError as for `declare`, and for an answer that is no such frame.
        """
        frame, data = packed(bars)
        return cast("pl.DataFrame", unpacked(frame, self._ask(request, data)[1]))

    def apply(self, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function of an engine or a strategy answers; a bare object for what is neither frame, arrays nor numbers.

        request: all but the arguments. InputError when it fails or takes too long.
        """
        parts = [self._packed(request, at, value) for at, value in enumerate((*args, *kwargs.values()))]
        sizes = [(kind, len(data)) for kind, data in parts]
        named = dict(zip(kwargs, sizes[len(args) :], strict=True))
        whole = msgspec.structs.replace(request, args=tuple(sizes[: len(args)]), kwargs=named)
        answer, data = self._ask(whole, b"".join(data for _, data in parts))
        return unpacked(answer.kind, data)

    def _packed(self, request: Request, at: int, value: Any) -> tuple[str, bytes]:
        """An argument of a call, by its place."""
        return packed(value)

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _ask(self, request: Request, payload: bytes) -> tuple[Answer, bytes]:
        what = described(request)
        with self._lock:
            process = self._started()
            self._prepare(process, request, what)
            message, data = self._exchange(process, request, payload, what, self._limits.seconds)
        answer = msgspec.json.decode(message, type=Answer)
        if answer.error:
            raise (FunctionError if answer.raised else InputError)(answer.error)
        return answer, data

    def _prepare(self, process: "subprocess.Popen[bytes]", request: Request, what: str) -> None:
        """To import libraries takes long on a busy machine; it is not part of a call."""
        needed = (request.text, bool(request.kind or request.data))
        if needed not in self._prepared:
            plain = msgspec.structs.replace(request, args=(), kwargs={}, prepares=True)
            self._exchange(process, plain, b"", what, _START_SECONDS)
            self._prepared.add(needed)

    def _exchange(
        self, process: "subprocess.Popen[bytes]", request: Request, frame: bytes, what: str, seconds: float
    ) -> tuple[bytes, bytes]:
        """Request and answer within `seconds`; else the process is ended and InputError says why."""
        done, expired = threading.Event(), threading.Event()
        threading.Thread(target=_watch, args=(process, seconds, done, expired), daemon=True).start()
        try:
            send(cast(BinaryIO, process.stdin), request, frame)
            return receive(cast(BinaryIO, process.stdout))
        except (EOFError, OSError) as exc:
            self._end()
            raise InputError(self._death(what, process, expired=expired.is_set())) from exc
        except BaseException:  # an interrupt: the answer that is still to come would be taken for the next call's
            self._end()
            raise
        finally:
            done.set()
            if expired.is_set():
                self._end()

    def _death(self, what: str, process: "subprocess.Popen[bytes]", *, expired: bool) -> str:
        if expired:
            return (
                f"{what} was stopped: it did not end within {self._limits.seconds:g} s. "
                f"Look for an endless loop, or raise the setting {'module' if self._limits.guarded else 'engine'}_seconds."
            )
        if (process.returncode or 0) >= 0:
            return f"{what} ended its process. A function must return; remove what ends the program."
        died = f"{what} ended its process by signal {-process.returncode}, most likely for want of memory."
        if not self._limits.guarded:
            return f"{died} Let it take less."
        return f"{died} Let it take less than {self._limits.memory} MiB, or raise the setting module_memory."

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._process = _spawn(self._limits)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        self._prepared.clear()
        if process is None:
            return
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close(pipe)


def _watch(process: "subprocess.Popen[bytes]", seconds: float, done: threading.Event, expired: threading.Event) -> None:
    """End a process whose time is up; and what a dead one left running, which would hold its end of the pipe."""
    deadline = time.monotonic() + seconds
    while not done.wait(min(_LOOK_SECONDS, max(deadline - time.monotonic(), 0.0))):
        if time.monotonic() >= deadline:
            expired.set()
        if expired.is_set() or process.poll() is not None:
            _kill(process)
            return


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process, its fork, and what that left running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _close(pipe: object) -> None:
    try:
        cast(BinaryIO, pipe).close()
    except OSError:  # the other end is gone, with what was still to be written
        return


def _spawn(limits: Limits) -> "subprocess.Popen[bytes]":
    own = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} if limits.guarded else dict(os.environ)
    environment = {**own, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tidemill.user_modules.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if limits.guarded else None,  # what an engine prints is shown
        env=environment,
        cwd="/" if limits.guarded else None,
        start_new_session=True,  # ctrl-C is the program's to handle
    )
    timer = threading.Timer(_START_SECONDS, process.kill)
    timer.daemon = True
    timer.start()
    try:
        send(cast(BinaryIO, process.stdin), limits)
        greeting = cast(BinaryIO, process.stdout).read(len(READY))
    except OSError:
        greeting = b""
    finally:
        timer.cancel()
    if greeting != READY:
        process.kill()
        process.wait()
        raise UnavailableError(
            "The process for functions of modules did not start. `tidemill doctor` looks at the installation."
        )
    return process


@cache
def sandbox(limits: Limits) -> Sandbox:
    """The one of this process with these limits. Requests carry the file, so it serves any number of them."""
    made = Sandbox(limits)
    atexit.register(made.close)
    return made
