"""The sandbox's process: `python -m tidemill.user_modules.worker`, spoken to over its standard input and output.

Each request runs the file anew in a module of its own, so no call sees what an earlier one left behind.
"""

import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from tidemill.domain.errors import InputError, TidemillError
from tidemill.user_modules import guard
from tidemill.user_modules.calls import Declared
from tidemill.user_modules.execution import execute, explained
from tidemill.user_modules.values import packed_answer, taken_apart
from tidemill.user_modules.wire import READY, Answer, Limits, Request, described, receive, send

if TYPE_CHECKING:
    import polars as pl

# The program stops a call that takes too long. Should the program itself be gone, this ends the process a little later.
_GRACE = 5.0


class _Worker:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._guarded = False
        self._read: Any = None
        self._write: Any = None

    def answer(self, request: Request, payload: bytes) -> tuple[Answer, bytes]:
        """The outcome of one request. A user's error is an answer; only a dead process is none."""
        if not request.path:
            self._prepare_frames()
            return Answer(), b""
        file = Path(request.path)
        if not self._guarded and self._limits.guarded:
            self._guarded = True
            guard.install(file)
        signal.setitimer(signal.ITIMER_REAL, self._limits.seconds + _GRACE)
        try:
            done = execute(request.text, file)
            if not request.kind:
                return Answer(), b""
            if not self._limits.guarded:
                return _applied(done.find(request.kind, request.name), request, payload, file)
            made = done.find(request.kind, request.name)
            bars = self._read(io.BytesIO(payload))
            what = described(request, file)
            with explained(file, what):
                result = made.function(bars)
            return Answer(), self._bytes(result, bars, what, request.name)
        except TidemillError as exc:
            return Answer(error=str(exc)), b""
        except MemoryError:
            most = f"the {self._limits.memory} MiB it may take" if self._limits.guarded else "there is"
            return Answer(error=f"The module {file.name} needs more memory than {most}."), b""
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _prepare_frames(self) -> None:
        import polars as pl

        # A first query makes polars' threads and loads what it needs, before anything is refused.
        pl.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}).lazy().with_columns(pl.col("a").mean().over("b")).collect()
        self._read, self._write = pl.read_ipc_stream, pl.DataFrame.write_ipc_stream
        if self._limits.guarded:
            guard.close_polars()

    def _bytes(self, result: object, bars: "pl.DataFrame", what: str, name: str) -> bytes:
        frame = _frame_of(result, bars, what, name)
        buffer = io.BytesIO()
        self._write(frame, buffer)
        return buffer.getvalue()


def _applied(made: Declared, request: Request, payload: bytes, file: Path) -> tuple[Answer, bytes]:
    """A function of an engine or a strategy, called with what came along."""
    function = made.second if request.second else made.function
    values = taken_apart((*request.args, *request.kwargs.values()), payload)
    args, named = values[: len(request.args)], values[len(request.args) :]
    if function is None:
        raise InputError(f"The {request.kind} {request.name} of {file.name} lacks a function.")
    with explained(file, described(request, file)):
        result = function(*args, **dict(zip(request.kwargs, named, strict=True)))
    kind, data = packed_answer(result)
    return Answer(kind=kind), data


def _frame_of(result: Any, bars: "pl.DataFrame", what: str, name: str) -> "pl.DataFrame":
    """The answer of a function as a frame with one row for each bar, in their order. InputError for anything else."""
    import polars as pl

    if isinstance(result, pl.LazyFrame):
        result = result.collect()
    if not isinstance(result, pl.DataFrame):
        try:
            result = pl.Series(name, result).to_frame()
        except (TypeError, ValueError, pl.exceptions.PolarsError) as exc:
            raise InputError(f"{what} answers a {type(result).__name__}; it must answer a polars frame or series.") from exc
    if {"symbol", "open_time"} <= set(result.columns):
        return _in_order(result, bars, what)
    if result.height != bars.height:
        raise InputError(
            f"{what} answers {result.height} rows for {bars.height} bars. Answer one a bar, or symbol and open_time too."
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
        raise InputError(f"{what} answers times or symbols that are not those of the bars.") from exc
    if own.select("symbol", "open_time").is_duplicated().any():
        raise InputError(f"{what} answers two rows for one bar. Answer one row a bar.")
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
    worker = _Worker(limits)
    while True:
        try:
            message, payload = receive(requests)
        except EOFError:
            return
        answer, frame = worker.answer(msgspec.json.decode(message, type=Request), payload)
        send(answers, answer, frame)


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes, out of reach of a user's code: its own input is empty, and what it prints goes where errors go."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    return requests, answers


if __name__ == "__main__":
    main()
