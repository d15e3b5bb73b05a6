"""Trials in processes of their own, forked from one that has imported and loaded everything and done nothing.

`python -m tests.faults.forked` reads one task a line and answers each with what its child found. A child costs 10 ms where a
new interpreter costs seconds of imports.
"""

from __future__ import annotations

import base64
import importlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from numba.core.registry import CPUDispatcher

from tests.faults import running
from tests.faults.killing import Kill, Watch, Write
from tidemill.compiled import Kernel
from tidemill.domain.errors import TidemillError

_LIMIT = 120
PROJECT = Path(__file__).resolve().parents[2]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a child does, in this order: repair, run these steps (killed at a write), read all figures, run again."""

    place: running.Place
    repair: bool = False
    steps: tuple[str, ...] = ()
    kill: Kill | None = None
    figures: bool = False
    again: bool = False


class Compiled(msgspec.Struct, frozen=True):
    """A signature of an entry, pickled as numba does it in its cache."""

    module: str
    name: str
    signature: str


class Loaded(msgspec.Struct, frozen=True):
    """What a child had imported, and the machine code that it had loaded."""

    modules: tuple[str, ...] = ()
    compiled: tuple[Compiled, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """signal: of the child's death, 0 where it ended. error: the sentence of a TidemillError. defect: the traceback of another.

    worked: steps that had work to do in the run; again: the same of the run after it.
    """

    signal: int = 0
    error: str = ""
    defect: str = ""
    writes: tuple[Write, ...] = ()
    worked: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    figures: dict[str, str] = {}
    loaded: Loaded = Loaded()


class Forked:
    """The process from which trials are forked. One trial at a time."""

    def __init__(self) -> None:
        # One thread for linear algebra: what is forked has no others then, and the digits do not depend on the machine's load.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, env=environment,
        )  # fmt: skip

    def do(self, task: Task) -> Answer:
        return msgspec.json.decode(self._ask(task), type=Answer)

    def warm(self, loaded: Loaded) -> None:
        """Import and load what a child had, so that the next ones need not."""
        self._ask(loaded)

    def _ask(self, what: msgspec.Struct) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode({"kind": type(what).__name__, "value": what}) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process from which trials are forked is gone"
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a step prints
    for line in sys.stdin.buffer:
        asked = msgspec.json.decode(line)
        if asked["kind"] == "Loaded":
            loaded = msgspec.convert(asked["value"], Loaded)
            _import(loaded.modules)
            _load(loaded.compiled)
            answer = b"{}"
        else:
            answer = _in_child(msgspec.convert(asked["value"], Task))
        answers.write(answer + b"\n")
        answers.flush()


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)


def _load(compiled: Sequence[Compiled]) -> None:
    """What is loaded already costs nothing."""
    for one in compiled:
        with suppress(Exception):
            getattr(sys.modules[one.module], one.name).compile(pickle.loads(base64.b64decode(one.signature)))


def _loaded() -> Loaded:
    return Loaded(tuple(sorted(sys.modules)), tuple(_compiled()))


def _compiled() -> Iterator[Compiled]:
    for module in [name for name in sys.modules if name.startswith("tidemill.")]:
        for name, what in vars(sys.modules[module]).items():
            if isinstance(what, CPUDispatcher) and not isinstance(what, Kernel) and what.py_func.__module__ == module:
                yield from (Compiled(module, name, base64.b64encode(pickle.dumps(one)).decode()) for one in what.signatures)


def _in_child(task: Task) -> bytes:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(_LIMIT)
        _tell(writer, _done(task))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer or msgspec.json.encode(Answer(signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1))


def _tell(writer: int, answer: Answer) -> None:
    """The last thing that a child does: nothing of its parent's is closed or flushed."""
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(msgspec.json.encode(answer))
    os._exit(0)


def _done(task: Task) -> Answer:
    watch = Watch(Path(task.place.home), task.kill)
    watch.begin()
    found: dict[str, Any] = {}
    try:
        if task.repair:
            running.repair(task.place)
        if task.steps:
            found["worked"] = tuple(running.run(task.place, task.steps))
        if task.figures:
            found["figures"] = running.figures(task.place)
        if task.again:
            found["again"] = tuple(running.run(task.place, task.steps or running.ORDER))
    except TidemillError as exc:
        found["error"] = str(exc)
    except BaseException:
        found["defect"] = traceback.format_exc()
    return Answer(writes=tuple(watch.writes()), loaded=_loaded(), **found)


if __name__ == "__main__":
    _serve()
