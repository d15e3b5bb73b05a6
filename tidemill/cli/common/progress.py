"""A line on a terminal that says what is being done, once that takes longer than a second; nothing where nobody watches."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from tidemill.domain.intervals import Interval
    from tidemill.domain.market import Instrument
    from tidemill.domain.ports import BarSource

_PATIENCE, _BEAT = 1.0, 0.2
_CLEAR = "\r\x1b[K"
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Say(Protocol):
    """Takes a detail to show behind the line, such as how far the work is."""

    def __call__(self, detail: str) -> None: ...


class _Line:
    """The line and the thread that keeps it alive."""

    def __init__(self, text: str) -> None:
        self._text, self._detail = text, ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, name="tidemill-progress", daemon=True)
        self._thread.start()

    def say(self, detail: str) -> None:
        self._detail = f", {detail}"

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _show(self) -> None:
        beats = 0
        if self._done.wait(_PATIENCE):
            return
        while not self._done.wait(_BEAT):
            seconds = _PATIENCE + beats * _BEAT
            self._write(f"{_CLEAR}{_FRAMES[beats % len(_FRAMES)]} {self._text}{self._detail} … {seconds:.0f} s")
            beats += 1
        self._write(_CLEAR)

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


@contextmanager
def progress(text: str) -> Iterator[Say]:
    """Show `text` and the seconds on stderr while the block runs, if that is a terminal."""
    if not sys.stderr.isatty():
        yield _silent
        return
    line = _Line(text)
    try:
        yield line.say
    finally:
        line.close()


def _silent(detail: str) -> None:
    del detail


class Counted:
    """A source of bars that says how many rows have come; everything else is the source's own."""

    def __init__(self, source: BarSource, say: Say) -> None:
        self._source, self._say = source, say

    @property
    def venue(self) -> str:
        return self._source.venue

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    async def instruments(self, symbols: Sequence[str]) -> list[Instrument]:
        return await self._source.instruments(symbols)

    async def bars(
        self, symbols: Sequence[str], interval: Interval, start: datetime | None, end: datetime | None
    ) -> AsyncIterator[pl.DataFrame]:
        rows = 0
        async for frame in self._source.bars(symbols, interval, start, end):
            rows += frame.height
            self._say(f"{rows:,} rows")
            yield frame

    async def close(self) -> None:
        await self._source.close()
