"""PostgreSQL with deadlines: a small pool of asyncpg connections on which no call can hang.

asyncpg can wait for ever when the server dies in the middle of a COPY or the link goes silent, and its own `timeout=` does not
help. So every call runs under `asyncio.timeout`, and a connection on which a call did not end well is dropped, never awaited.
The deadline is for lack of progress: a COPY that moves gets a new one with every chunk.

A pool of our own instead of asyncpg's: that one waits for a graceful cancel of a timed-out query when a connection comes back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import asyncpg

from tidemill.config import Secret
from tidemill.domain.errors import DeadlineError, IntegrityError, TidemillError, UnavailableError
from tidemill.storage.postgres_errors import FOREIGN_ERRORS, BusyError, domain_error

T = TypeVar("T")

# jit costs more than it saves on queries that run for milliseconds. The server checks every second whether the client of a
# running statement still lives, so that the locks of a dead one fall.
_SESSION = """
SET jit = off; SET timezone = 'UTC'; SET client_connection_check_interval = '1s';
SET idle_in_transaction_session_timeout = '60s'; SET application_name = 'tidemill'
"""
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_POLITE_CLOSE = 0.5


class Connection:
    """One session of the server. Every call ends within the deadline, by an answer or by a TidemillError."""

    def __init__(self, raw: Any, timeout: float) -> None:
        self._raw = raw
        self._timeout = timeout

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Drop the session unless the server itself answered; turn foreign errors into ours."""
        try:
            yield
        except TidemillError:
            raise
        except FOREIGN_ERRORS as exc:
            error = domain_error(exc, self._timeout)
            if isinstance(error, UnavailableError) and not isinstance(error, BusyError):
                self.drop()
            raise error from exc
        except BaseException:
            self.drop()
            raise

    async def _call(self, work: Awaitable[T]) -> T:
        with self._mapped():
            async with asyncio.timeout(self._timeout):
                return await work

    async def fetch(self, sql: str, *args: object) -> list[Any]:
        return await self._call(self._raw.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: object) -> Any:
        return await self._call(self._raw.fetchrow(sql, *args))

    async def fetchval(self, sql: str, *args: object) -> Any:
        return await self._call(self._raw.fetchval(sql, *args))

    async def execute(self, sql: str, *args: object) -> str:
        """Runs one statement, or several without arguments; returns the command tag of the last."""
        return str(await self._call(self._raw.execute(sql, *args)))

    async def copy_in(self, table: str, columns: Sequence[str], chunks: Iterable[bytes], *, schema: str | None = None) -> int:
        """COPY `chunks` of the binary format into `table`; returns the rows written. Each chunk has a deadline of its own."""
        with self._mapped():
            async with asyncio.timeout(self._timeout) as timer:
                source = self._paced(chunks, timer)
                tag = await self._raw.copy_to_table(table, source=source, columns=columns, format="binary", schema_name=schema)
        return int(tag.rpartition(" ")[2])

    async def _paced(self, chunks: Iterable[bytes], timer: asyncio.Timeout) -> AsyncIterator[bytes]:
        """asyncpg asks for a chunk when the server has taken the one before: that is progress."""
        for chunk in chunks:
            timer.reschedule(asyncio.get_running_loop().time() + self._timeout)
            yield chunk

    async def copy_out(self, query: str, *args: object) -> bytes:
        """The binary COPY output of a query. The deadline starts anew with every piece that arrives."""
        pieces: list[bytes] = []
        with self._mapped():
            async with asyncio.timeout(self._timeout) as timer:

                async def receive(piece: bytes) -> None:
                    timer.reschedule(asyncio.get_running_loop().time() + self._timeout)
                    pieces.append(piece)

                await self._raw.copy_from_query(query, *args, output=receive, format="binary")
        return b"".join(pieces)

    async def commit(self) -> None:
        """COMMIT. A lost answer is a DeadlineError: whether it took effect is unknown, a repeat of the same write tells."""
        try:
            tag = await self.execute("COMMIT")
        except UnavailableError as exc:
            raise DeadlineError(
                "The database did not confirm a commit, so whether it was stored is unknown. "
                "Repeat it: nothing is stored twice."
            ) from exc
        if tag != "COMMIT":
            raise IntegrityError("A transaction with a failed statement was not stored. Report this: an error was swallowed.")

    async def rollback(self) -> None:
        """ROLLBACK if the session is still there; a server that does not answer forgets the transaction by itself."""
        if self.closed:
            return
        try:
            await self.execute("ROLLBACK")
        except TidemillError:
            self.drop()

    @property
    def closed(self) -> bool:
        return bool(self._raw.is_closed())

    @property
    def reusable(self) -> bool:
        return not self.closed and not self._raw.is_in_transaction()

    def drop(self) -> None:
        """Cut the connection without waiting for anybody."""
        self._raw.terminate()

    async def close(self) -> None:
        """Say goodbye, but wait for an answer only briefly."""
        try:
            async with asyncio.timeout(_POLITE_CLOSE):
                await self._raw.close()
        except FOREIGN_ERRORS:
            self.drop()


class Database:
    """A pool of connections to one database. Errors: UnavailableError, DeadlineError (outcome unknown) or a StopError.

    It recovers by itself when the server is back. One instance belongs to one event loop.
    """

    def __init__(self, dsn: Secret, *, connections: int = 8, timeout: float = 4.0) -> None:
        self._dsn = dsn
        self.connections = connections
        self.timeout = timeout
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False

    @classmethod
    async def connect(cls, dsn: Secret, *, connections: int = 8, timeout: float = 4.0) -> "Database":  # noqa: ASYNC109 - kept for all later calls
        """A pool that has proven that the server answers. timeout: seconds without progress after which a call fails."""
        database = cls(dsn, connections=connections, timeout=timeout)
        await database.fetchval("SELECT 1")
        return database

    async def close(self) -> None:
        """Close every connection; work in progress fails. Never waits longer than half a second."""
        self._closed = True
        for connection in self._busy:
            connection.drop()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close() for connection in idle))

    async def _open(self) -> Connection:
        raw = None
        try:
            raw = await asyncpg.connect(self._dsn.reveal(), timeout=self.timeout)
            await raw.execute(_SESSION)
        except FOREIGN_ERRORS as exc:
            if raw is not None:
                raw.terminate()
            raise domain_error(exc, self.timeout) from exc
        except BaseException:
            if raw is not None:
                raw.terminate()
            raise
        return Connection(raw, self.timeout)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.drop()
        return None

    def _drop_idle(self) -> None:
        """After a silence every idle connection is suspect: the next call opens a new one."""
        while self._idle:
            self._idle.pop().drop()

    async def _acquire(self, *, fresh: bool = False) -> Connection:
        """A connection to give back with `_release`. fresh: not one that lay idle."""
        if self._closed:
            raise UnavailableError("The database pool is closed. Open a new one.")
        await self._slots.acquire()
        try:
            connection = (None if fresh else self._take_idle()) or await self._open()
        except BaseException:
            self._slots.release()
            raise
        self._busy.add(connection)
        return connection

    def _release(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection.reusable and not self._closed:
            self._idle.append(connection)
        else:
            connection.drop()
        self._slots.release()

    @contextmanager
    def _suspicion(self) -> Iterator[None]:
        try:
            yield
        except DeadlineError:
            self._drop_idle()
            raise

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """One deadline for waiting for a free connection, opening it and the call."""
        with self._suspicion():
            try:
                async with asyncio.timeout(self.timeout):
                    yield
            except TimeoutError as exc:
                raise domain_error(exc, self.timeout) from exc

    async def _use(self, work: Callable[[Connection], Awaitable[T]], *, fresh: bool) -> T:
        connection = await self._acquire(fresh=fresh)
        try:
            return await work(connection)
        finally:
            self._release(connection)

    async def _once(self, work: Callable[[Connection], Awaitable[T]], *, repeat: bool) -> T:
        """Lend a connection to `work`; where that is safe, once more on a new one if the first turned out to be dead."""
        async with self._deadline():
            try:
                return await self._use(work, fresh=False)
            except UnavailableError as exc:
                if not repeat or isinstance(exc, DeadlineError):
                    raise
            return await self._use(work, fresh=True)

    async def fetch(self, sql: str, *args: object) -> list[Any]:
        """All rows. A statement that starts with SELECT is repeated once when the connection turns out to be lost."""
        return await self._once(lambda connection: connection.fetch(sql, *args), repeat=_is_read(sql))

    async def fetchrow(self, sql: str, *args: object) -> Any:
        """The first row or None; repeated like `fetch`."""
        return await self._once(lambda connection: connection.fetchrow(sql, *args), repeat=_is_read(sql))

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first value or None; repeated like `fetch`."""
        return await self._once(lambda connection: connection.fetchval(sql, *args), repeat=_is_read(sql))

    async def execute(self, sql: str, *args: object) -> str:
        """Runs a statement, never twice; returns its command tag."""
        return await self._once(lambda connection: connection.execute(sql, *args), repeat=False)

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """BEGIN … COMMIT; any exception rolls back. Each statement has its own deadline.

        snapshot: read only, and all statements see the database as it was at the first.
        A commit whose answer is lost raises DeadlineError: repeat the whole transaction if it is idempotent.
        """
        connection = await self._begin(_SNAPSHOT if snapshot else "BEGIN")
        try:
            with self._suspicion():
                try:
                    yield connection
                except Exception:
                    await connection.rollback()
                    raise
                await connection.commit()
        finally:
            self._release(connection)

    async def _begin(self, statement: str) -> Connection:
        """A connection inside a transaction. A dead idle one is replaced: nothing was done on it yet."""
        async with self._deadline():
            for fresh in (False, True):
                connection = await self._acquire(fresh=fresh)
                try:
                    await connection.execute(statement)
                except BaseException as exc:
                    self._release(connection)
                    if fresh or isinstance(exc, DeadlineError) or not isinstance(exc, UnavailableError):
                        raise
                else:
                    return connection
        raise UnavailableError("The database does not answer. Check that it runs, then try again.")


def _is_read(sql: str) -> bool:
    return sql.lstrip()[:6].upper() == "SELECT"
