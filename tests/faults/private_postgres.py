"""A Postgres of the test's own that can be killed and frozen, and a proxy before it that can be cut or act at a chosen byte."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tidemill.config import Secret
from tidemill.keeper.accounts import Account
from tidemill.keeper.folder import Folder
from tidemill.keeper.postgres import DATABASE, USER, Postgres
from tidemill.keeper.processes import Process, open_lock, processes_in, wait_until

Action = Callable[[], Awaitable[None]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class PrivatePostgres:
    """One server on one port; everything it runs can be signalled at once."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._postgres = Postgres(folder, Account.of_servers())
        self._data = folder.data_of("postgres")
        self.port = free_port()

    def start(self) -> None:
        """Start it, after a kill as well, and wait until it accepts connections."""
        self._postgres.prepare()
        lock = open_lock(self._folder.lock_of("postgres"))
        try:
            self._process = self._postgres.launch(self.port, lock)
        finally:
            os.close(lock)
        me = Process.of(self._process.pid)
        assert me is not None
        assert wait_until(lambda: self._postgres.ready(me, self.port), 60), self._folder.log_of("postgres").read_text()

    def signal(self, number: signal.Signals) -> None:
        for process in processes_in(self._data):
            process.send(number)

    def kill(self) -> None:
        """kill -9 of everything, as if the machine lost its power."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        assert wait_until(lambda: not processes_in(self._data), 10)

    def heal(self) -> None:
        """Running again, whatever a test did to it."""
        self.signal(signal.SIGCONT)
        if self._process.poll() is not None:
            self.start()

    def stop(self) -> None:
        self.kill()

    @property
    def dsn(self) -> Secret:
        return self.dsn_at(self.port)

    def dsn_at(self, port: int) -> Secret:
        credentials = self._folder.credentials()
        assert credentials is not None
        return Secret(f"postgresql://{USER}:{credentials.postgres}@127.0.0.1:{port}/{DATABASE}")


class Proxy:
    """Passes bytes between clients and the server, until told otherwise."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._passing = asyncio.Event()
        self._passing.set()
        self._links: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._trap: tuple[Callable[[bytes], bool], Action, bool] | None = None
        self.sprung = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    def cut(self) -> None:
        """The cable is out: nothing passes any more and nobody is told."""
        self._passing.clear()

    def mend(self) -> None:
        """The cable is in again; what was on the way is lost, so old connections are reset."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._passing.set()

    def trap(self, when: Callable[[bytes], bool], action: Action, *, deliver: bool) -> None:
        """Run `action` once when bytes of a client fulfil `when`, which reach the server (deliver) or are lost.

        That client gets no answer any more.
        """
        self._trap = (when, action, deliver)
        self.sprung.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._writers.append(writer)
        with suppress(OSError, asyncio.CancelledError):
            await self._passing.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.append(back)
            link = _Link()
            await asyncio.gather(self._forward(reader, back, link), self._backward(there, writer, link))
        writer.transport.abort()
        self._links.discard(task)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: "_Link") -> None:
        while data := await _read(source):
            await self._passing.wait()
            if self._trap is not None and self._trap[0](data):
                await self._spring(sink, data, link)
            else:
                await _write(sink, data)
        sink.transport.abort()

    async def _spring(self, sink: asyncio.StreamWriter, data: bytes, link: "_Link") -> None:
        assert self._trap is not None
        _, action, deliver = self._trap
        self._trap = None
        link.mute = True
        if deliver:
            await _write(sink, data)
        await action()
        self.sprung.set()

    async def _backward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: "_Link") -> None:
        while data := await _read(source):
            await self._passing.wait()
            if not link.mute:
                await _write(sink, data)
        sink.transport.abort()


class _Link:
    """One client's connection. mute: its trap has sprung, so no answer reaches it any more."""

    mute = False


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(65_536)
    except ConnectionError:
        return b""


async def _write(sink: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):
        sink.write(data)
        await sink.drain()
