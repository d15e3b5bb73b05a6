"""The sandbox's process: `python -m tidemill.user_modules.worker`, spoken to over its standard input and output.

It stays clean: it imports the libraries that a file names, computes nothing and never runs a file. Each request runs the file
in a fork of its own, so nothing that a call changes, in the module or in a library, reaches another. polars' threads do not
survive a fork, so polars computes in the forks alone. Or it becomes the process of one module, which is asked bar after bar.
"""

import gc
import io
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import msgspec

from tidemill.domain.errors import InputError, TidemillError
from tidemill.features.declaration import shipped
from tidemill.user_modules import closing, data, guard
from tidemill.user_modules.calls import Declared
from tidemill.user_modules.declared import packed_declarations
from tidemill.user_modules.execution import Executed, execute, explained
from tidemill.user_modules.libraries import import_libraries, named_in
from tidemill.user_modules.tails import tails
from tidemill.user_modules.threads import ended_threads
from tidemill.user_modules.values import KEPT, packed_answer, restored, storable, taken_apart
from tidemill.user_modules.wire import READY, Answer, Limits, Request, described, receive, send

if TYPE_CHECKING:
    import polars as pl

# The program stops a call that takes too long. Should the program itself be gone, this ends the process a little later.
_GRACE = 5.0


class _Worker:
    def __init__(self, limits: Limits, requests: BinaryIO, answers: BinaryIO) -> None:
        self._limits, self._requests, self._answers = limits, requests, answers

    def serve(self) -> None:
        """Until the other side closes the pipe."""
        for request, payload in self._received():
            if request.prepares:
                self._import_for(request)
                send(self._answers, Answer())
            elif request.stays:
                self._stay(request)
                return
            else:
                self._in_a_fork(request, payload)

    def _received(self) -> Iterator[tuple[Request, bytes]]:
        while True:
            try:
                message, payload = receive(self._requests)
            except EOFError:
                return
            yield msgspec.json.decode(message, type=Request), payload

    def _import_for(self, request: Request) -> None:
        shipped()
        import_libraries(named_in(request.text))
        if request.kind or request.data:
            _frames()
        if self._limits.guarded:
            import_libraries(closing.libraries_with_readers(request.text))
            closing.close_readers()
        gc.freeze()

    def _in_a_fork(self, request: Request, payload: bytes) -> None:
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(source)
            self._end_with_answer(request, payload, sink)
        os.close(sink)
        _, status = os.waitpid(child, 0)
        os.set_blocking(source, False)
        if not _arrived(source):
            _end_like(status)
        os.close(source)

    def _end_with_answer(self, request: Request, payload: bytes, sink: int) -> NoReturn:
        """In the fork. A byte in `sink` says that the answer was given, whatever the file's own code did to the process."""
        self._requests.close()
        own = os.getpid()
        try:
            self._guard(request)
            self._give(own, *self._within(request, lambda: _answered(self._executed(request), request, payload, {})))
            os.write(sink, b".")
        finally:
            os._exit(0)

    def _stay(self, file: Request) -> None:
        """From here on this is the process of one module: the file runs in it once, and every later request is a call of it."""
        own, models = os.getpid(), dict[str, Any]()
        started: list[Executed] = []

        def run() -> tuple[Answer, bytes]:
            started.append(self._executed(file))
            return Answer(), b""

        self._guard(file)
        self._give(own, *self._within(file, run))
        for request, payload in self._received() if started else ():
            call = partial(_answered, started[0], request, payload, models)
            self._give(own, *self._within(request, call))

    def _guard(self, request: Request) -> None:
        file = Path(request.path)
        if self._limits.guarded:
            closing.close_default_database(request.text)
            guard.install(file, *(data.place(name, file) for name in request.data))

    def _executed(self, request: Request) -> Executed:
        file = Path(request.path)
        with self._threads(file, f"The module {file.name}"):
            return execute(request.text, file, request.data)

    def _threads(self, file: Path, what: str) -> AbstractContextManager[None]:
        """Libraries of engines keep threads of their own; functions of features and labels may not."""
        return ended_threads(file, what) if self._limits.guarded else nullcontext()

    def _within(self, request: Request, work: Callable[[], tuple[Answer, bytes]]) -> tuple[Answer, bytes]:
        """The outcome of one request. A user's error is an answer; only a dead process is none."""
        file = Path(request.path)
        signal.setitimer(signal.ITIMER_REAL, self._limits.seconds + _GRACE)
        try:
            with self._threads(file, described(request)):
                return work()
        except TidemillError as exc:
            return Answer(error=str(exc)), b""
        except MemoryError:
            most = f"the {self._limits.memory} MiB it may take" if self._limits.guarded else "there is"
            return Answer(error=f"The module {file.name} needs more memory than {most}."), b""
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _give(self, own: int, answer: Answer, data: bytes) -> None:
        """own: the process that was asked. One that a person's function forked came back here as well, and says nothing."""
        _show_what_was_printed()
        if os.getpid() != own:
            os._exit(0)
        send(self._answers, answer, data)


@cache
def _frames() -> tuple[Callable[[io.BytesIO], "pl.DataFrame"], Callable[["pl.DataFrame", io.BytesIO], None]]:
    """How frames come and go; asked for before the readers and writers of polars refuse."""
    import polars as pl

    data.readers()
    return pl.read_ipc_stream, pl.DataFrame.write_ipc_stream


def _arrived(source: int) -> bool:
    try:
        return bool(os.read(source, 1))
    except BlockingIOError:  # what the fork left running still holds the other end
        return False


def _show_what_was_printed() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a person's own code may have put anything there
            stream.flush()


def _end_like(status: int) -> NoReturn:
    """End as the fork ended, so that the program learns of it and starts a new process."""
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # a signal that cannot be handled needs no default again
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _answered(done: Executed, request: Request, payload: bytes, models: dict[str, Any]) -> tuple[Answer, bytes]:
    """models: engine → the model that a call brought along; a later one that brings none goes on with it."""
    if not request.kind:
        return Answer(kind="declared"), packed_declarations(done)
    if request.kind in ("features", "label"):
        return Answer(), _computed(done, request, payload)
    return _applied(done.find(request.kind, request.name), request, payload, models)


def _computed(done: Executed, request: Request, payload: bytes) -> bytes:
    """A function of features or of a label, over bars."""
    read, write = _frames()
    made, what = done.find(request.kind, request.name), described(request)

    def called(bars: "pl.DataFrame") -> "pl.DataFrame":
        with explained(done.file, what):
            result = made.function(bars)
        return _frame_of(result, bars, what, request.name)

    bars, buffer = read(io.BytesIO(payload)), io.BytesIO()
    write(_by_tail(called, bars, request, by_slot=False) if request.by_tail else called(bars), buffer)
    return buffer.getvalue()


def _by_tail(function: Callable[..., Any], rows: "pl.DataFrame", request: Request, *, by_slot: bool) -> Any:
    """What a function answers for each time from its tail alone; what is no frame as it is."""
    import polars as pl

    found = []
    for tail in tails(rows, request.by_tail, by_slot=by_slot, newest=request.newest):
        answer = function(tail.rows)
        if not isinstance(answer, pl.DataFrame) or answer.schema.get("open_time") != rows.schema["open_time"]:
            return answer
        found.append(answer.filter(pl.col("open_time") == tail.time))
    made = pl.concat(found, how="vertical_relaxed") if found else function(rows)
    return made.sort("symbol", "open_time") if "symbol" in made.columns else made


def _scored(predict: Callable[..., Any], rows: "pl.DataFrame", request: Request) -> Any:
    """symbol, open_time, prediction of each time by the tails of its symbols alone; what is not a number a row as it is.

    A symbol without a row at that time is not in the tail: no prediction of another may depend on it.
    """
    import numpy as np
    import polars as pl

    found = []
    for tail in tails(rows, request.by_tail, by_slot=False, newest=request.newest):
        now = pl.col("open_time") == tail.time
        given = tail.rows.filter(now.any().over("symbol"))
        answer = predict(given)
        numbers = np.asarray(answer, dtype=np.float64).reshape(-1)
        if len(numbers) != given.height:
            return answer
        found.append(given.select("symbol", "open_time", prediction=pl.Series(numbers)).filter(now))
    return pl.concat(found) if found else rows.select("symbol", "open_time", prediction=pl.lit(None, pl.Float64))


def _applied(made: Declared, request: Request, payload: bytes, models: dict[str, Any]) -> tuple[Answer, bytes]:
    """A function of an engine or a strategy, called with what came along; models go through `save` and `load`."""
    file, function = Path(request.path), made.second if request.second else made.function
    values = taken_apart((*request.args, *request.kwargs.values()), payload)
    args, named = values[: len(request.args)], dict(zip(request.kwargs, values[len(request.args) :], strict=True))
    if function is None:
        raise InputError(f"The {request.kind} {request.name} of {file.name} lacks a function.")
    if request.second:
        args[0] = _model(made, request, args[0], models)
    try:
        with explained(file, described(request)):
            if request.by_tail and request.second:
                result = _scored(partial(function, args[0], **named), args[1], request)
            elif request.by_tail:
                result = _by_tail(partial(function, **named), args[0], request, by_slot=True)
            else:
                result = function(*args, **named)
    except InputError as exc:
        return Answer(error=str(exc), raised=True), b""
    if not request.second and made.save is not None:
        with explained(file, f"save of the engine {request.name} of {file.name}"):
            result = storable(made.save(result))
    kind, data = packed_answer(result)
    return Answer(kind=kind), data


def _model(made: Declared, request: Request, given: Any, models: dict[str, Any]) -> Any:
    """The model of a call, as `load` makes it; once for all calls that it is kept for."""
    if request.args[0][0] == KEPT:
        return models[made.name]
    if made.load is not None:
        file = Path(request.path)
        with explained(file, f"load of the engine {request.name} of {file.name}"):
            given = made.load(restored(given))
    models[made.name] = given
    return given


def _frame_of(result: Any, bars: "pl.DataFrame", what: str, name: str) -> "pl.DataFrame":
    """The answer of a function as a frame with one row for each bar, in their order. InputError for anything else."""
    import polars as pl

    if isinstance(result, pl.LazyFrame):
        result = result.collect()
    if not isinstance(result, pl.DataFrame):
        try:
            result = pl.Series(name, result).to_frame()
        except (TypeError, ValueError, pl.exceptions.PolarsError) as exc:
            raise InputError(
                f"{what} returned a value of type {type(result).__name__}; it must return a polars DataFrame or Series."
            ) from exc
    if {"symbol", "open_time"} <= set(result.columns):
        return _in_order(result, bars, what)
    if result.height != bars.height:
        raise InputError(
            f"{what} returned {result.height:,} rows for {bars.height:,} bars. Return one row a bar, or the columns "
            "symbol and open_time too."
        )
    return bars.select("symbol", "open_time").hstack(result.select(pl.exclude("symbol", "open_time")))


def _in_order(result: "pl.DataFrame", bars: "pl.DataFrame", what: str) -> "pl.DataFrame":
    import polars as pl

    keys = bars.select("symbol", "open_time")
    if result.height == keys.height and result.select("symbol", "open_time").equals(keys):
        return result
    try:
        own = result.with_columns(pl.col("open_time").cast(keys.schema["open_time"]), pl.col("symbol").cast(pl.String))
    except pl.exceptions.PolarsError as exc:
        raise InputError(f"{what} returned a symbol or open_time of another type than the bars have. Keep theirs.") from exc
    if own.select("symbol", "open_time").is_duplicated().any():
        raise InputError(f"{what} returned two rows for one bar. Return one row a bar.")
    return keys.join(own, on=("symbol", "open_time"), how="left", maintain_order="left")


def main() -> None:
    """Serve requests until the other side closes the pipe."""
    requests, answers = _pipes()
    limits = msgspec.json.decode(receive(requests)[0], type=Limits)
    sys.dont_write_bytecode = True
    if limits.guarded:
        guard.limit_memory(limits.memory)
        guard.forbid_writing()
    answers.write(READY)
    answers.flush()
    _Worker(limits, requests, answers).serve()


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes, out of reach of a user's code: its own input is empty, and what it prints goes where errors go."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    return requests, answers


if __name__ == "__main__":
    main()
