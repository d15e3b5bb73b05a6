"""A real HTTP/1.1 server on a loopback port that answers as it is told, and misbehaves on demand down to the socket."""

import asyncio
import gzip
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from tidemill.services import BreakerPolicy, Clock, RetryPolicy, ServiceOptions

# Retries without waiting, and time-outs that a test can afford.
IMPATIENT = ServiceOptions(
    timeout=5.0,
    deadline=5.0,
    retry=RetryPolicy(attempts=4, wait_first=0.0, wait_max=0.0, wait_jitter=0.0),
    breaker=BreakerPolicy(failures=1_000, open_for=3_600.0),
)


class VirtualClock(Clock):
    """Time that passes only where somebody sleeps or a test says so."""

    def __init__(self, now: datetime = datetime(2024, 9, 8, 12, 0, 30, tzinfo=UTC)) -> None:
        self._origin, self._seconds = now, 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self._seconds

    def now(self) -> datetime:
        return self._origin + timedelta(seconds=self._seconds)

    def advance(self, seconds: float) -> None:
        self._seconds += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        wake_at = self._seconds + seconds
        await asyncio.sleep(0)
        self._seconds = max(self._seconds, wake_at)


@dataclass(frozen=True)
class Request:
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What is sent. `pieces` replaces the body by chunks without a length; `cut` ends the connection after so many bytes of
    the body; `reset` and `stall` send nothing at all."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Callable[[], Iterator[bytes]] | None = None
    cut: int | None = None
    reset: bool = False
    stall: bool = False


Fault = Callable[[Answer], Answer]


class LoopbackServer:
    """Subclasses, or `respond`, say what a request gets; `misbehave` queues faults for the requests to come."""

    def __init__(self, respond: Callable[[Request], Answer] | None = None, *, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.requests: list[Request] = []
        self.connections = 0
        self.open_at_once = 0
        self.dated = True
        self.was_asked = asyncio.Event()
        self._respond = respond or (lambda request: Answer())
        self._faults: deque[tuple[str, Fault]] = deque()
        self._always: list[tuple[str, Fault]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0

    def misbehave(self, *faults: Fault, on: str = "", times: int = 1) -> None:
        """The next requests whose path contains `on` get one fault each, `times` round."""
        self._faults.extend((on, fault) for _ in range(times) for fault in faults)

    def always(self, fault: Fault, on: str = "") -> None:
        self._always.append((on, fault))

    def behave(self) -> None:
        self._faults.clear()
        self._always.clear()

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if path in request.path]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def respond(self, request: Request) -> Answer:
        return self._respond(request)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._exchange(await reader.readuntil(b"\r\n\r\n"), writer):
                    pass
        finally:
            writer.transport.abort()

    async def _exchange(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        self._busy += 1
        self.open_at_once = max(self.open_at_once, self._busy)
        try:
            request = _parse(head)
            self.requests.append(request)
            self.was_asked.set()
            answer = self.respond(request)
            for fault in self._faults_for(request):
                answer = fault(answer)
            return await self._send(answer, writer)
        finally:
            self._busy -= 1

    def _faults_for(self, request: Request) -> list[Fault]:
        found = [fault for on, fault in self._always if on in request.path]
        for position, (on, fault) in enumerate(self._faults):
            if on in request.path:
                del self._faults[position]
                return [*found, fault]
        return found

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        if answer.reset:
            return False
        if answer.stall:
            await asyncio.Event().wait()
        headers = {"content-type": "application/json"}
        if self.dated:
            headers["date"] = format_datetime(self.clock.now().replace(microsecond=0), usegmt=True)
        headers["transfer-encoding" if answer.pieces else "content-length"] = (
            "chunked" if answer.pieces else str(len(answer.body))
        )
        lines = [f"HTTP/1.1 {answer.status} X"] + [f"{name}: {text}" for name, text in {**headers, **answer.headers}.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if answer.pieces is None:
            writer.write(answer.body if answer.cut is None else answer.body[: answer.cut])
        else:
            for piece in answer.pieces():
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(0)  # drain alone does not let the client run
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if answer.cut is not None:
            writer.close()
        return answer.cut is None


def _parse(head: bytes) -> Request:
    first, *rest = head.decode("latin-1").split("\r\n")
    target = urlsplit(first.split(" ")[1])
    headers = {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in rest if line)}
    return Request(target.path, dict(parse_qsl(target.query)), headers)


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return lambda answer: Answer(body, code, named)


def reset(answer: Answer) -> Answer:
    return replace(answer, reset=True)


def stall(answer: Answer) -> Answer:
    return replace(answer, stall=True)


def cut_off(answer: Answer) -> Answer:
    return replace(answer, cut=len(answer.body) // 2)


def broken_json(answer: Answer) -> Answer:
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def web_page(answer: Answer) -> Answer:
    return replace(answer, body=b"<html>We are down for maintenance</html>")


def packed(answer: Answer) -> Answer:
    return replace(answer, body=gzip.compress(answer.body), headers={**answer.headers, "content-encoding": "gzip"})


def packed_and_cut_off(answer: Answer) -> Answer:
    whole = packed(answer)
    return replace(whole, body=whole.body[:-9])


def endless(answer: Answer) -> Answer:
    def pieces() -> Iterator[bytes]:
        while True:
            yield b"[" * 65_536

    return replace(answer, pieces=pieces)


def gzip_bomb(answer: Answer) -> Answer:
    """10 GB of zeros when unpacked, sent as 10 MB."""

    def pieces() -> Iterator[bytes]:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        zeros = bytes(1 << 20)
        yield packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
        # After a full flush nothing refers back, so one more block can be repeated.
        block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
        for _ in range(200):
            yield block * 50  # one chunk is 50 MB: unpacking chunk by chunk is no bound

    return replace(answer, pieces=pieces, headers={"content-encoding": "gzip"})


def changed(change: Callable[[object], object]) -> Fault:
    """The body's JSON value, changed."""
    return lambda answer: replace(answer, body=json.dumps(change(json.loads(answer.body))).encode())
