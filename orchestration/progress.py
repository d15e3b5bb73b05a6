"""One line per step on the terminal while a run lasts; nothing where nobody watches."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from dagster import DagsterEvent, DagsterEventType

_CLEAR = "\r\x1b[K"


class Progress:
    """Shows the running step, and each finished one with its seconds."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._watched = self._stream.isatty()
        self._started = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._write(_CLEAR)

    def show(self, event: DagsterEvent) -> None:
        name = (event.step_key or "").replace("__", "/")
        if event.event_type is DagsterEventType.STEP_START:
            self._started = self._clock()
            self._write(f"{_CLEAR}  {name} …")
        elif event.event_type in (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE):
            word = "" if event.event_type is DagsterEventType.STEP_SUCCESS else "  failed"
            self._write(f"{_CLEAR}  {name:<40} {self._clock() - self._started:6.1f} s{word}\n")

    def _write(self, text: str) -> None:
        if self._watched:
            self._stream.write(text)
            self._stream.flush()
