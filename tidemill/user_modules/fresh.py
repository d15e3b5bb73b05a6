"""A function, each call of which runs in a process that no earlier call ever touched.

polars' threads do not survive a fork, so the caller's own process cannot be forked. A clean one is started instead: it imports
the libraries that the function refers to, computes nothing, and forks itself for every call. What a call remembers, in a
global, a closure or a library, ends with its fork.
"""

from __future__ import annotations

import gc
import io
import os
import subprocess  # nosec B404  # starts this interpreter with a list of arguments
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Self, cast

import msgspec

from tidemill.domain.errors import UnavailableError
from tidemill.provenance import ROOT
from tidemill.user_modules.libraries import import_libraries
from tidemill.user_modules.wire import exactly, framed

if TYPE_CHECKING:
    import polars as pl

    from tidemill.user_modules.carried import Carried


class _Outcome(msgspec.Struct, frozen=True):
    """frame: what the function answered. error: kind and text of what it raised, or what it answered instead of a frame."""

    frame: bytes = b""
    error: tuple[str, str] = ("", "")


class Fresh:
    """A carried function that can be called like the one that it is; a context, at whose end its process is gone."""

    def __init__(self, function: Carried) -> None:
        environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # ctrl-C is the program's to handle
        )
        self._send(msgspec.msgpack.encode(function))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                cast(BinaryIO, pipe).close()

    def __call__(self, bars: pl.DataFrame, **beside: pl.DataFrame) -> pl.DataFrame:
        """What the function answers; raises an exception of the name and words of what it raised."""
        import polars as pl

        self._send(msgspec.msgpack.encode({"": _packed(bars), **{name: _packed(frame) for name, frame in beside.items()}}))
        try:
            outcome = msgspec.msgpack.decode(exactly(cast(BinaryIO, self._process.stdout)), type=_Outcome)
        except EOFError as exc:
            raise UnavailableError("The process in which functions are proven died. Prove them once more.") from exc
        kind, text = outcome.error
        if kind:
            raise type(kind, (Exception,), {})(text)
        return pl.read_ipc_stream(io.BytesIO(outcome.frame))

    def _send(self, data: bytes) -> None:
        pipe = cast(BinaryIO, self._process.stdin)
        try:
            pipe.write(framed(data))
            pipe.flush()
        except OSError as exc:
            raise UnavailableError("The process in which functions are proven died. Prove them once more.") from exc


def _packed(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def _main() -> None:
    """In the clean process: a fork for each request, until the other side closes the pipe."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)  # what a function prints is no answer
    from tidemill.user_modules.carried import Carried

    function = msgspec.msgpack.decode(exactly(requests), type=Carried)
    sys.path[:] = list(function.paths)
    import_libraries(function.modules)
    gc.freeze()
    while True:
        try:
            request = exactly(requests)
        except EOFError:
            return
        answers.write(framed(_in_a_fork(function, request)))
        answers.flush()


def _in_a_fork(function: Carried, request: bytes) -> bytes:
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        _answer(function, request, sink)
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not data:
        data = msgspec.msgpack.encode(_Outcome(error=("RuntimeError", f"its process ended with the status {status}")))
    return data


def _answer(function: Carried, request: bytes, sink: int) -> NoReturn:
    """In the fork: compute, write, end."""
    try:
        data = msgspec.msgpack.encode(_outcome(function, request))
    except BaseException as exc:  # whatever a user's function does ends with this process
        data = msgspec.msgpack.encode(_Outcome(error=(type(exc).__name__, str(exc))))
    with os.fdopen(sink, "wb") as pipe:
        pipe.write(data)
    os._exit(0)


def _outcome(function: Carried, request: bytes) -> _Outcome:
    import polars as pl

    from tidemill.user_modules.carried import rebuilt

    frames = msgspec.msgpack.decode(request, type=dict[str, bytes])
    read = {name: pl.read_ipc_stream(io.BytesIO(data)) for name, data in frames.items()}
    call: Callable[..., Any] = rebuilt(function)
    made = call(read.pop(""), **read)
    if not isinstance(made, pl.DataFrame):
        return _Outcome(error=("InputError", f"The function returned a {type(made).__name__}; return a polars DataFrame."))
    return _Outcome(_packed(made))


if __name__ == "__main__":
    _main()
