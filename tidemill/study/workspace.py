"""One opened installation: settings, database, lake. Synchronous outside, asynchronous within.

Commands, assets and notebooks are synchronous; the database and the venues are not. A workspace owns one event loop in a
thread of its own and runs coroutines there, so it works inside Jupyter's running loop as well.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from tidemill.config import Settings
from tidemill.embedded import Servers, servers
from tidemill.storage.migrations import migrate
from tidemill.storage.postgres import Database

if TYPE_CHECKING:
    from tidemill.storage.bars import BarStore
    from tidemill.storage.cache import Cache
    from tidemill.storage.lake import Lake

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """An event loop in a daemon thread; `call` runs a coroutine function there and waits for its answer.

    It is the bridge from outside: what runs in the loop awaits, and puts what is synchronous into a thread of its own.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tidemill-loop", daemon=True)
        self._thread.start()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """RuntimeError within the loop itself, which would wait for itself for ever."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{function} was called from the loop that is to run it. Await it there.")

        async def run() -> T:
            return await function(*args, **kwargs)

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Workspace:
    """Settings, running servers, database and lake of one home. Open it with `open_workspace`."""

    def __init__(self, settings: Settings, running: Servers, loop: LoopThread, database: Database) -> None:
        self.settings = settings
        self.servers = running
        self.loop = loop
        self.database = database
        self.call = loop.call
        self._cache: Cache | None = None

    @cached_property
    def store(self) -> BarStore:
        from tidemill.storage.bars import BarStore  # polars and numpy: `data show` does without

        return BarStore(self.database)

    @cached_property
    def lake(self) -> Lake:
        from tidemill.storage.lake import Lake

        return Lake(self.settings.lake)

    @property
    def cache(self) -> Cache:
        """Opened at the first use: most commands need none, and its client costs 200 ms to import."""
        if self._cache is None:
            self._cache = self.call(self._open_cache)
        return self._cache

    async def _open_cache(self) -> Cache:
        from tidemill.storage.cache import Cache

        return Cache.of(self.settings, self.servers.redis_url)

    def close(self) -> None:
        if self._cache is not None:
            self.call(self._cache.close)


@contextmanager
def open_workspace(settings: Settings) -> Iterator[Workspace]:
    """Start or join the servers of a home, connect, bring the schema up to date; close all of it at the end."""
    with ExitStack() as stack:
        running = stack.enter_context(servers(settings))
        loop = LoopThread()
        stack.callback(loop.close)
        database = loop.call(
            Database.connect, running.postgres_dsn, connections=settings.connections, timeout=settings.database_timeout
        )
        stack.callback(loop.call, database.close)
        loop.call(migrate, database)
        workspace = Workspace(settings, running, loop, database)
        stack.callback(workspace.close)
        yield workspace
