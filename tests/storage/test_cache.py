"""The cache: one load for many readers, no stale frame after a write, and no harm when Redis is gone."""

import asyncio
import multiprocessing
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tidemill.config import Secret, Settings
from tidemill.domain.errors import InputError, UnavailableError
from tidemill.storage.cache import Cache, lifetimes
from tidemill.storage.stamps import Stamps

LIFETIMES = lifetimes(Settings())
KEY = "prices:AAPL"


class Loader:
    """A source that counts how often it is asked; `value` is what it holds now."""

    def __init__(self) -> None:
        self.value = 1.0
        self.calls = 0
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> pl.DataFrame:
        self.calls += 1
        self.asked.put_nowait(self.calls)
        value = self.value
        await self.gate.wait()
        return pl.DataFrame({"x": [value]})


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
async def cache(tmp_path: Path, redis_url: Secret) -> AsyncIterator[Cache]:
    opened = Cache(LIFETIMES, tmp_path / "stamps", redis_url)
    yield opened
    await opened.close()


@pytest.fixture
async def neighbour(tmp_path: Path, redis_url: Secret) -> AsyncIterator[Cache]:
    """Another process's cache on the same host and Redis."""
    opened = Cache(LIFETIMES, tmp_path / "stamps", redis_url)
    yield opened
    await opened.close()


async def value(cache: Cache, loader: Loader, key: str = KEY) -> float:
    return float((await cache.frame(key, loader))["x"][0])


async def test_a_second_reader_gets_the_frame_without_a_load(cache: Cache, loader: Loader) -> None:
    assert [await value(cache, loader) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert loader.calls == 1


async def test_another_process_finds_the_frame_in_redis(cache: Cache, neighbour: Cache, loader: Loader) -> None:
    await value(cache, loader)
    assert await value(neighbour, loader) == 1.0
    assert loader.calls == 1
    assert {(entry.key, entry.level) for entry in await neighbour.show()} == {(KEY, "memory"), (KEY, "redis")}


async def test_a_hundred_readers_of_a_missing_key_cause_one_load(cache: Cache, loader: Loader) -> None:
    loader.gate.clear()
    readers = [asyncio.create_task(value(cache, loader)) for _ in range(100)]
    await loader.asked.get()
    loader.gate.set()
    assert await asyncio.gather(*readers) == [1.0] * 100
    assert loader.calls == 1


async def test_a_reader_that_gives_up_does_not_take_the_others_along(cache: Cache, loader: Loader) -> None:
    loader.gate.clear()
    first, second = (asyncio.create_task(value(cache, loader)) for _ in range(2))
    await loader.asked.get()
    first.cancel()
    loader.gate.set()
    assert await second == 1.0


async def test_after_a_write_no_process_is_given_the_old_frame(cache: Cache, neighbour: Cache, loader: Loader) -> None:
    assert [await value(cache, loader), await value(neighbour, loader)] == [1.0, 1.0]
    loader.value = 2.0
    cache.invalidate(KEY)
    assert [await value(neighbour, loader), await value(cache, loader)] == [2.0, 2.0]


async def test_a_load_that_began_before_a_write_is_not_kept_and_not_joined_after_it(cache: Cache, loader: Loader) -> None:
    loader.gate.clear()
    early = asyncio.create_task(value(cache, loader))
    await loader.asked.get()
    loader.value = 2.0
    cache.invalidate(KEY)
    late = asyncio.create_task(value(cache, loader))
    await loader.asked.get()
    loader.gate.set()
    assert [await early, await late] == [1.0, 2.0]
    assert await value(cache, loader) == 2.0


async def test_what_the_loader_raises_reaches_every_reader_and_is_not_kept(cache: Cache, loader: Loader) -> None:
    async def fail() -> pl.DataFrame:
        raise UnavailableError("gone")

    results = await asyncio.gather(*(cache.frame(KEY, fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [UnavailableError] * 3
    assert await value(cache, loader) == 1.0


async def test_a_lifetime_ends(tmp_path: Path, redis_url: Secret, loader: Loader) -> None:
    cache = Cache({"prices": 0.0}, tmp_path / "stamps", redis_url)
    await value(cache, loader)
    async with asyncio.timeout(5):
        while loader.calls < 2:  # Redis keeps it for a millisecond
            await value(cache, loader)
    await cache.close()


async def test_the_least_used_frames_go_when_memory_is_full(tmp_path: Path, loader: Loader) -> None:
    frame = pl.DataFrame({"x": [1.0] * 100})
    cache = Cache(LIFETIMES, tmp_path / "stamps", memory_bytes=int(2.5 * frame.estimated_size()))

    async def load() -> pl.DataFrame:
        return frame

    for key in ("prices:A", "prices:B", "prices:A", "prices:C"):
        await cache.frame(key, load)
    assert [entry.key for entry in await cache.show()] == ["prices:A", "prices:C"]
    await cache.close()


async def test_clearing_removes_what_matches_everywhere(cache: Cache, neighbour: Cache, loader: Loader) -> None:
    for key in (KEY, "prices:MSFT", "regime:AAPL"):
        await value(cache, loader, key)
        await value(neighbour, loader, key)
    assert await cache.clear("prices:MSFT") == 2
    assert await cache.clear("prices:*") == 2
    assert {entry.key for entry in await cache.show() if entry.level == "redis"} == {"regime:AAPL"}
    loader.value = 2.0
    assert await value(neighbour, loader) == 2.0
    await cache.clear()
    assert await cache.show() == []


@pytest.mark.parametrize(
    "key", ["prices", "prices:", "unknown:A", "prices:a b", "prices:*", "prices:../x", "prices:" + "x" * 300]
)
async def test_what_is_not_a_key_is_refused(cache: Cache, loader: Loader, key: str) -> None:
    with pytest.raises(InputError, match="FAMILY:NAME"):
        await cache.frame(key, loader)


async def test_damaged_bytes_in_redis_are_a_miss(cache: Cache, neighbour: Cache, loader: Loader, redis_url: Secret) -> None:
    import redis

    await value(cache, loader)
    with redis.Redis.from_url(redis_url.reveal()) as client:
        stored = client.get("tidemill:cache:" + KEY)
        assert isinstance(stored, bytes)
        client.set("tidemill:cache:" + KEY, stored[:12] + b"garbage", px=60_000)
    assert await value(neighbour, loader) == 1.0
    assert loader.calls == 2


async def test_without_redis_it_is_slower_and_not_broken(tmp_path: Path, loader: Loader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (None, Secret(f"redis://127.0.0.1:{port}")):
        cache = Cache(LIFETIMES, tmp_path / "stamps", address)
        loader.value += 1
        cache.invalidate(KEY)
        assert await value(cache, loader) == loader.value
        cache.invalidate(KEY)
        assert await value(cache, loader) == loader.value
        assert await cache.clear() == 1
        await cache.close()


async def test_a_silent_redis_is_asked_once_and_then_left_alone(tmp_path: Path, loader: Loader) -> None:
    accepted = 0

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    cache = Cache(LIFETIMES, tmp_path / "stamps", Secret(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    async with asyncio.timeout(2):
        for number in range(50):
            assert await value(cache, loader, f"prices:A{number}") == 1.0
    assert accepted <= 1
    await cache.close()
    server.close()


def write_often(path: str, keys: list[str], counters: Any, rounds: int) -> None:
    """A writing process: change the fact, then the stamp, then report."""
    stamps = Stamps(Path(path))
    for number in range(1, rounds + 1):
        for index, key in enumerate(keys):
            counters[2 * index] = number
            stamps.change(key)
            counters[2 * index + 1] = number
    stamps.close()


def test_processes_never_see_a_stamp_from_before_a_reported_write(tmp_path: Path) -> None:
    """Even positions hold the fact, odd ones what was reported; a hit may never be older than the report read before it."""
    keys = [f"prices:S{number}" for number in range(4)]
    context = multiprocessing.get_context("spawn")
    counters = context.Array("q", 2 * len(keys), lock=False)
    stamps = Stamps(tmp_path / "stamps")
    held: dict[str, tuple[int, int]] = {}
    writer = context.Process(target=write_often, args=(str(tmp_path / "stamps"), keys, counters, 2_000))
    writer.start()
    hits = stale = 0
    while writer.is_alive():
        for index, key in enumerate(keys):
            reported = counters[2 * index + 1]
            stamp = stamps.read(key)
            if key in held and held[key][0] == stamp:
                hits += 1
                stale += held[key][1] < reported
            else:
                held[key] = (stamp, counters[2 * index])
    writer.join()
    stamps.close()
    assert writer.exitcode == 0
    assert hits > 0
    assert stale == 0


@pytest.mark.parametrize("left", [b"", bytes(1_000)])
def test_a_file_of_stamps_that_was_cut_off_is_made_again(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "stamps"
    path.write_bytes(left)
    stamps = Stamps(path)
    before = stamps.read("prices:A")
    stamps.change("prices:A")
    assert stamps.read("prices:A") != before
    stamps.close()


def test_all_who_make_the_file_at_once_share_one(tmp_path: Path) -> None:
    start = threading.Barrier(8, timeout=30)

    def opened(_: int) -> Stamps:
        start.wait()
        return Stamps(tmp_path / "home" / "stamps")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(opened, range(8)))
    found[0].change("prices:A")
    assert {stamps.read("prices:A") for stamps in found} == {found[0].read("prices:A")}
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["stamps"]
    for stamps in found:
        stamps.close()
