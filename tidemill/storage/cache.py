"""Frames kept near: process memory, then Redis, then whoever can load them (Postgres, the lake).

Keys: `prices:{symbol}`, `features:{symbol}:{timestamp}`, `predictions:{symbol}:{engine}`, `metrics:{symbol}:{period}`,
`regime:{symbol}`, `book:{symbol}`. Each family has a lifetime. A write calls `invalidate` after its commit and before it
returns; from then on no process of this host gets the old frame (see stamps.py). Processes of other hosts do not share the
stamps: what they put into Redis is not used here, and their own memory is bounded by the lifetimes alone.

Redis may be gone at any moment: a call waits for it 0.1 s at most, then Redis is left alone for 5 s.
"""

import asyncio
import fnmatch
import io
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import polars as pl

from tidemill.config import Secret, Settings
from tidemill.domain.errors import InputError
from tidemill.storage.stamps import Stamps

T = TypeVar("T")

_KEY = re.compile(r"([a-z]+):[A-Za-z0-9^][A-Za-z0-9._^=:+-]{0,180}")
_PREFIX = "tidemill:cache:"
_STAMP_BYTES = 8
_PATIENCE = 0.1
_INSISTENCE = 2.0
_REST = 5.0
_MEMORY_BYTES = 256_000_000


class CacheEntry(msgspec.Struct, frozen=True):
    """One entry as `tidemill cache show` lists it. seconds: of its lifetime that are left."""

    key: str
    level: str
    bytes: int
    seconds: float


class _Entry(msgspec.Struct, frozen=True):
    frame: pl.DataFrame
    stamp: int
    expires: float
    bytes: int


class Cache:
    """Frames by key; `lifetimes`: family → seconds. Belongs to one event loop; processes may share Redis and stamps."""

    def __init__(
        self,
        lifetimes: Mapping[str, float],
        stamps: Path,
        redis_url: Secret | None = None,
        *,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        self._lifetimes = dict(lifetimes)
        self._stamps = Stamps(stamps)
        self._memory = _Memory(memory_bytes)
        self._redis = None if redis_url is None else _Redis(redis_url)
        self._flights: dict[tuple[str, int], asyncio.Task[pl.DataFrame]] = {}

    @classmethod
    def of(cls, settings: Settings, redis_url: Secret | None) -> "Cache":
        """The cache of an installation."""
        return cls(lifetimes(settings), settings.home / "cache.stamps", redis_url)

    async def frame(self, key: str, load: Callable[[], Awaitable[pl.DataFrame]]) -> pl.DataFrame:
        """The frame of `key`, loaded once however many ask for it. What `load` raises reaches all of them."""
        lifetime = self._lifetime(key)
        stamp = self._stamps.read(key)
        held = self._memory.get(key, stamp)
        if held is not None:
            return held
        # Whoever comes after a write must not board a flight that left before it.
        flight = self._flights.get((key, stamp))
        if flight is None:
            flight = asyncio.create_task(self._fly(key, stamp, lifetime, load))
            self._flights[key, stamp] = flight
            flight.add_done_callback(lambda done: self._land(key, stamp, done))
        return await asyncio.shield(flight)

    def _land(self, key: str, stamp: int, flight: asyncio.Task[pl.DataFrame]) -> None:
        del self._flights[key, stamp]
        if not flight.cancelled():
            flight.exception()  # seen: those who wait get it, and there may be nobody left

    async def _fly(self, key: str, stamp: int, lifetime: float, load: Callable[[], Awaitable[pl.DataFrame]]) -> pl.DataFrame:
        found = None if self._redis is None else await self._redis.get(key, stamp)
        if found is not None:
            frame, left = found
            self._memory.put(key, frame, stamp, left)
            return frame
        frame = await load()
        self._memory.put(key, frame, stamp, lifetime)
        if self._redis is not None:
            await self._redis.put(key, frame, stamp, lifetime)
        return frame

    def invalidate(self, *keys: str) -> None:
        """Call it after a write was committed and before it is reported: nobody on this host is given the old frame."""
        for key in keys:
            self._lifetime(key)
            self._stamps.change(key)

    async def show(self) -> list[CacheEntry]:
        """What lies in this process's memory and in Redis, by key."""
        entries = self._memory.entries(self._stamps)
        if self._redis is not None:
            entries += await self._redis.entries()
        return sorted(entries, key=lambda entry: (entry.key, entry.level))

    async def clear(self, pattern: str = "*") -> int:
        """Remove entries whose key matches a shell pattern; returns how many there were in memory and Redis.

        A pattern with wildcards makes every entry of every process on this host old, since their keys are not known here.
        """
        if any(character in pattern for character in "*?["):
            self._stamps.change_all()
        else:
            self.invalidate(pattern)
        removed = self._memory.remove(pattern)
        return removed + (0 if self._redis is None else await self._redis.remove(pattern))

    async def close(self) -> None:
        for flight in list(self._flights.values()):
            flight.cancel()
        if self._redis is not None:
            await self._redis.close()
        self._stamps.close()

    def _lifetime(self, key: str) -> float:
        match = _KEY.fullmatch(key)
        if match is None or match[1] not in self._lifetimes:
            raise InputError(
                f"{key[:60]!r} is not a key of the cache. Write FAMILY:NAME with one of {', '.join(self._lifetimes)}."
            )
        return self._lifetimes[match[1]]


def lifetimes(settings: Settings) -> dict[str, float]:
    """Seconds for each family of keys."""
    return {
        "prices": settings.cache_prices,
        "book": settings.cache_prices,
        "features": settings.cache_features,
        "regime": settings.cache_features,
        "predictions": settings.cache_predictions,
        "metrics": settings.cache_metrics,
    }


class _Memory:
    """Frames of this process; the ones that were not used for longest go when there is no room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._held: OrderedDict[str, _Entry] = OrderedDict()

    def get(self, key: str, stamp: int) -> pl.DataFrame | None:
        held = self._held.get(key)
        if held is None:
            return None
        if held.stamp != stamp or held.expires <= time.monotonic():
            self._drop(key)
            return None
        self._held.move_to_end(key)
        return held.frame

    def put(self, key: str, frame: pl.DataFrame, stamp: int, seconds: float) -> None:
        self._drop(key)
        size = int(frame.estimated_size())
        if size > self._limit:
            return
        self._held[key] = _Entry(frame, stamp, time.monotonic() + seconds, size)
        self._bytes += size
        while self._bytes > self._limit:
            self._drop(next(iter(self._held)))

    def _drop(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= held.bytes

    def entries(self, stamps: Stamps) -> list[CacheEntry]:
        now = time.monotonic()
        return [
            CacheEntry(key, "memory", held.bytes, held.expires - now)
            for key, held in self._held.items()
            if held.expires > now and held.stamp == stamps.read(key)
        ]

    def remove(self, pattern: str) -> int:
        gone = [key for key in self._held if fnmatch.fnmatchcase(key, pattern)]
        for key in gone:
            self._drop(key)
        return len(gone)


class _Redis:
    """Frames in Redis, behind a time limit and a breaker. Every failure is a miss."""

    def __init__(self, url: Secret) -> None:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._client: Any = Redis.from_url(
            url.reveal(), socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=Retry(NoBackoff(), 0)
        )
        self._rests_until = 0.0

    async def _try(self, work: Callable[[], Awaitable[T]], otherwise: T, patience: float = _PATIENCE) -> T:
        from redis.exceptions import RedisError

        if time.monotonic() < self._rests_until:
            return otherwise
        try:
            async with asyncio.timeout(patience):
                return await work()
        except (RedisError, OSError, TimeoutError):
            self._rests_until = time.monotonic() + _REST
            return otherwise

    async def _insist(self, work: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """`_try` for whoever wants to know: a busy server is asked again, since `otherwise` would be believed."""
        deadline = time.monotonic() + _INSISTENCE
        while (left := deadline - time.monotonic()) > 0.0:
            self._rests_until = 0.0
            found: T | None = await self._try(work, None, patience=left)
            if found is not None:
                return found
            await asyncio.sleep(_PATIENCE)
        return otherwise

    async def get(self, key: str, stamp: int) -> tuple[pl.DataFrame, float] | None:
        """The frame and the seconds it may still live; None when there is none with this stamp."""

        async def work() -> tuple[bytes | None, int]:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.get(_PREFIX + key)
                pipe.pttl(_PREFIX + key)
                data, left = await pipe.execute()
            return data, int(left)

        nothing: tuple[bytes | None, int] = (None, 0)
        data, left = await self._try(work, nothing)
        if data is None or left <= 0 or data[:_STAMP_BYTES] != stamp.to_bytes(_STAMP_BYTES, "little"):
            return None
        try:
            return pl.read_ipc_stream(io.BytesIO(data[_STAMP_BYTES:])), left / 1_000
        except (pl.exceptions.PolarsError, OSError):
            return None

    async def put(self, key: str, frame: pl.DataFrame, stamp: int, seconds: float) -> None:
        buffer = io.BytesIO(stamp.to_bytes(_STAMP_BYTES, "little"))
        buffer.seek(_STAMP_BYTES)
        frame.write_ipc_stream(buffer)
        await self._try(lambda: self._client.set(_PREFIX + key, buffer.getbuffer(), px=max(1, int(seconds * 1_000))), None)

    async def entries(self) -> list[CacheEntry]:
        async def work() -> list[CacheEntry]:
            found = []
            async for name in self._client.scan_iter(match=_PREFIX + "*", count=1_000):
                size, left = await self._client.strlen(name), await self._client.pttl(name)
                if left > 0:
                    found.append(CacheEntry(name.decode().removeprefix(_PREFIX), "redis", int(size), left / 1_000))
            return found

        return await self._insist(work, [])

    async def remove(self, pattern: str) -> int:
        async def work() -> int:
            names = [name async for name in self._client.scan_iter(match=_PREFIX + pattern, count=1_000)]
            return int(await self._client.unlink(*names)) if names else 0

        return await self._insist(work, 0)

    async def close(self) -> None:
        await self._try(self._client.aclose, None)
