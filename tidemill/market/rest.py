"""What the public REST candles of all venues share: symbols, the asked span, paging side by side, and only closed bars.

An adapter says how its venue lists instruments and how one symbol's candles are paged; everything else is here.
"""

import asyncio
import difflib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec

from tidemill.domain.errors import InputError, MalformedError, SkipError, UnknownNameError
from tidemill.domain.intervals import Interval, epoch_microseconds
from tidemill.domain.market import Instrument, valid_symbol
from tidemill.services import Clock, Pace, Reply, Service, ServiceHealth, ServiceOptions

if TYPE_CHECKING:
    import polars as pl

# Numbers of a wire format, often as strings. The bounds also refuse NaN and inf, which a lax decoder would take.
Price = Annotated[float, msgspec.Meta(gt=0.0, lt=1e12)]
Volume = Annotated[float, msgspec.Meta(ge=0.0, lt=1e18)]
Increment = Annotated[float, msgspec.Meta(ge=0.0, lt=1e12)]

# A venue may still book trades of the last instant when the bar's time is over.
SETTLE = timedelta(seconds=2)
_QUEUED_FRAMES = 4
_SHOWN = 40


class Listing(msgspec.Struct, frozen=True):
    """One instrument and the name that the venue wants in a request."""

    instrument: Instrument
    code: str


class Span(msgspec.Struct, frozen=True):
    """Bars with start ≤ open_time < end, in microseconds since the epoch."""

    start: int | None
    end: int | None


def candle_frame(symbol: str, open_times: Sequence[int], columns: Mapping[str, Sequence[float]]) -> "pl.DataFrame":
    """Raw bars of one symbol; `open_times` in microseconds since the epoch, `columns` the prices and volumes by name."""
    import polars as pl

    times = pl.Series("open_time", open_times, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    values = [pl.Series(name, column, dtype=pl.Float64) for name, column in columns.items()]
    return pl.DataFrame([pl.repeat(symbol, len(times), eager=True, dtype=pl.String).alias("symbol"), times, *values])


def last_closed(server_time: datetime, interval: Interval) -> int:
    """The latest open time of a bar that was closed and settled at the server's time, in microseconds."""
    return epoch_microseconds(server_time - SETTLE) - interval.microseconds


def settled(frame: "pl.DataFrame", span: Span, closed: int) -> "pl.DataFrame":
    """The bars of `frame` inside `span` that opened at `closed` or before, in order of time, each different row once.

    Rows of one time with different values all stay: validation puts them into quarantine.
    """
    import polars as pl

    opened = pl.col("open_time").to_physical()
    wanted = opened <= closed
    if span.start is not None:
        wanted &= opened >= span.start
    if span.end is not None:
        wanted &= opened < span.end
    return frame.filter(wanted).unique(maintain_order=True).sort("open_time", maintain_order=True)


class RestSource(ABC):
    """Base of the venue adapters; implements `tidemill.domain.ports.BarSource`.

    `title` is what people call the venue, `intervals` what it calls each bar length.
    """

    venue: ClassVar[str]
    title: ClassVar[str]
    intervals: ClassVar[Mapping[Interval, str]]

    def __init__(
        self, base_url: str, *, pace: Pace, options: ServiceOptions | None, clock: Clock | None, concurrency: int = 8
    ) -> None:
        self._service = Service(self.title, base_url, options=options, pace=pace, clock=clock)
        self._clock = self._service.clock
        self._concurrency = concurrency
        self._known: dict[str, Listing] = {}
        self._listing = asyncio.Lock()
        self._ahead = timedelta(0)

    @abstractmethod
    async def _listings(self) -> list[Listing]:
        """Everything that the venue lists."""

    @abstractmethod
    def _pages(self, listing: Listing, interval: Interval, span: Span) -> AsyncGenerator["pl.DataFrame"]:
        """The closed bars of one symbol, a frame for each request."""

    @abstractmethod
    async def _ask_time(self) -> datetime:
        """The venue's own time, for answers without a Date header."""

    def _canonical(self, symbol: str) -> str:
        """The symbol that `symbol` stands for here; itself by default."""
        return symbol

    async def instruments(self, symbols: Sequence[str]) -> list[Instrument]:
        """The instruments of `symbols`; all there are when empty. Raises UnknownNameError with the nearest names."""
        return [listing.instrument for listing in await self._chosen(symbols)]

    async def bars(
        self, symbols: Sequence[str], interval: Interval, start: datetime | None, end: datetime | None
    ) -> AsyncGenerator["pl.DataFrame"]:
        """Closed bars with start ≤ open_time < end as they arrive, several symbols side by side.

        A symbol whose answers are malformed does not stop the others: its error is raised when they are done.
        """
        self._code(interval)
        span = _span(start, end)
        listings = await self._chosen(symbols)
        jobs = {listing.instrument.symbol: partial(self._pages, listing, interval, span) for listing in listings}
        async with aclosing(side_by_side(jobs, self._concurrency)) as frames:
            async for frame in frames:
                if not frame.is_empty():
                    yield frame

    def health(self) -> ServiceHealth:
        return self._service.health()

    async def close(self) -> None:
        await self._service.close()

    def _code(self, interval: Interval) -> str:
        """What the venue calls the interval, else UnknownNameError."""
        code = self.intervals.get(interval)
        if code is None:
            raise UnknownNameError(f"{self.title} bar interval", str(interval), map(str, sorted(self.intervals)))
        return code

    async def _chosen(self, symbols: Sequence[str]) -> list[Listing]:
        async with self._listing:
            if not self._known:
                self._known = {listing.instrument.symbol: listing for listing in await self._listings()}
        if not symbols:
            return list(self._known.values())
        return [self._find(symbol) for symbol in dict.fromkeys(map(self._canonical, symbols))]

    def _find(self, symbol: str) -> Listing:
        listing = self._known.get(symbol)
        if listing is None:
            symbol = symbol if len(symbol) <= _SHOWN else symbol[:_SHOWN] + "…"
            near = difflib.get_close_matches(symbol.upper(), self._known, n=5, cutoff=0.5)
            hint = f"{self.title} lists {len(self._known)} symbols." if near else f"{self.title} lists nothing like it."
            raise UnknownNameError(f"symbol on {self.title}", symbol, near, hint)
        return listing

    async def _server_time(self, reply: Reply[Any]) -> datetime:
        """The venue's time when `reply` was asked for, by its own clock and never by ours alone.

        The candles are as old as that or newer, however long the answer took: a bar closed by then is whole in them.
        """
        asked_at = self._clock.monotonic() - reply.elapsed
        moment = reply.server_time or await self._ask_time()
        moment -= timedelta(seconds=self._clock.monotonic() - asked_at)
        self._ahead = moment - self._clock.now()
        return moment

    def _venue_now(self) -> datetime:
        """The venue's time as last heard, carried forward by our clock."""
        return self._clock.now() + self._ahead


def usable(symbol: str) -> bool:
    """Whether a venue's name can be a symbol here; a few (with Chinese characters, say) cannot."""
    try:
        valid_symbol(symbol)
    except InputError:
        return False
    return True


def _span(start: datetime | None, end: datetime | None) -> Span:
    for moment in (start, end):
        if moment is not None and moment.tzinfo is None:
            raise InputError("A start or end has no time zone. Give times with one, for example 2024-01-01T00:00:00Z.")
    if start is not None and end is not None and start >= end:
        raise InputError(f"The start {start.isoformat()} is not before the end {end.isoformat()}. Swap or correct them.")
    return Span(None if start is None else epoch_microseconds(start), None if end is None else epoch_microseconds(end))


async def side_by_side(
    jobs: Mapping[str, Callable[[], AsyncGenerator["pl.DataFrame"]]], concurrency: int
) -> AsyncGenerator["pl.DataFrame"]:
    """Frames of all jobs (by symbol) as they come, at most `concurrency` jobs at once and a few frames waiting.

    The first error that is not a SkipError stops everything; a SkipError ends its own job and is raised after the others.
    Leaving the iteration early stops all jobs.
    """
    # A queue of frames and of finished workers; its bound is the semaphore, so that a worker can always say that it ended.
    arrived: asyncio.Queue[pl.DataFrame | asyncio.Task[None]] = asyncio.Queue()
    slots = asyncio.Semaphore(_QUEUED_FRAMES)
    waiting = iter(jobs.items())
    skipped: dict[str, SkipError] = {}

    async def work() -> None:
        for symbol, job in waiting:
            try:
                async with aclosing(job()) as pages:
                    async for frame in pages:
                        await slots.acquire()
                        arrived.put_nowait(frame)
            except SkipError as exc:
                skipped[symbol] = exc

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(jobs)))]
    for worker in workers:
        worker.add_done_callback(arrived.put_nowait)
    running = len(workers)
    try:
        while running:
            item = await arrived.get()
            if isinstance(item, asyncio.Task):
                running -= 1
                item.result()
            else:
                slots.release()
                yield item
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    if skipped:
        first = next(iter(skipped.values()))
        raise MalformedError(f"No usable answer for {', '.join(skipped)}; the other symbols are done. {first}") from first
