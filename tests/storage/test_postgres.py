"""The pool: deadlines, recovery, transactions, and every foreign error as one of ours."""

import asyncio
import inspect
import socket
from contextlib import suppress

import asyncpg
import pytest

from tidemill.config import Secret
from tidemill.domain.errors import (
    ConfigError,
    DeadlineError,
    InputError,
    IntegrityError,
    RetryError,
    StopError,
    TidemillError,
    UnavailableError,
)
from tidemill.storage.postgres import Database
from tidemill.storage.postgres_errors import FOREIGN_ERRORS, domain_error

SERVER_ERRORS = [
    kind for _, kind in inspect.getmembers(asyncpg.exceptions, inspect.isclass) if issubclass(kind, asyncpg.PostgresError)
]
CLIENT_ERRORS = [
    kind
    for _, kind in inspect.getmembers(asyncpg.exceptions, inspect.isclass)
    if issubclass(kind, Exception) and not issubclass(kind, asyncpg.PostgresError | Warning)
]


@pytest.mark.parametrize("kind", [*SERVER_ERRORS, *CLIENT_ERRORS], ids=lambda kind: kind.__name__)
def test_every_exception_of_asyncpg_is_caught_and_becomes_one_that_says_what_to_do(kind: type[Exception]) -> None:
    assert issubclass(kind, FOREIGN_ERRORS)
    error = domain_error(kind("text from the server"), 4.0)
    assert isinstance(error, StopError | RetryError)
    assert str(error).endswith(".")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (asyncpg.AdminShutdownError, UnavailableError),
        (asyncpg.CannotConnectNowError, UnavailableError),
        (asyncpg.ConnectionDoesNotExistError, UnavailableError),
        (asyncpg.TooManyConnectionsError, UnavailableError),
        (asyncpg.DiskFullError, UnavailableError),
        (asyncpg.DeadlockDetectedError, UnavailableError),
        (asyncpg.UniqueViolationError, IntegrityError),
        (asyncpg.NumericValueOutOfRangeError, InputError),
        (asyncpg.InvalidPasswordError, ConfigError),
        (asyncpg.UndefinedTableError, IntegrityError),
        (TimeoutError, DeadlineError),
        (ConnectionResetError, UnavailableError),
        (asyncpg.InterfaceError, UnavailableError),
    ],
)
def test_the_type_of_an_error_says_how_to_respond(kind: type[Exception], expected: type[TidemillError]) -> None:
    assert type(domain_error(kind("x"), 4.0)) is expected or issubclass(type(domain_error(kind("x"), 4.0)), expected)


async def test_rows_values_and_command_tags_come_back(database: Database) -> None:
    assert [row["n"] for row in await database.fetch("SELECT * FROM generate_series(1, $1::int) AS n", 3)] == [1, 2, 3]
    assert (await database.fetchrow("SELECT 1 AS a, 'x' AS b"))["b"] == "x"
    assert await database.fetchrow("SELECT 1 WHERE false") is None
    assert await database.execute("CREATE TABLE t (a int)") == "CREATE TABLE"


async def test_connections_are_used_again(database: Database) -> None:
    pids = {await database.fetchval("SELECT pg_backend_pid()") for _ in range(5)}
    assert len(pids) == 1


async def test_a_statement_beyond_the_deadline_fails_with_a_deadline_error_and_the_pool_goes_on(fresh_dsn: Secret) -> None:
    database = await Database.connect(fresh_dsn, connections=1, timeout=0.3)
    with pytest.raises(DeadlineError, match=r"within 0\.3 s"):
        await database.fetchval("SELECT pg_sleep(30)")
    assert await database.fetchval("SELECT 1") == 1
    await database.close()


async def test_the_server_stops_the_statement_of_a_client_that_gave_up(fresh_dsn: Secret) -> None:
    database = await Database.connect(fresh_dsn, connections=2, timeout=0.5)
    with pytest.raises(DeadlineError):
        await database.fetchval("SELECT pg_sleep(300) AS abandoned")
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%abandoned%' AND pid <> pg_backend_pid()"
    async with asyncio.timeout(20):
        while await database.fetchval(running):
            pass
    await database.close()


async def test_waiting_for_a_free_connection_ends_at_the_deadline(fresh_dsn: Secret) -> None:
    database = await Database.connect(fresh_dsn, connections=1, timeout=0.3)
    async with database.transaction():
        with pytest.raises(DeadlineError):
            await database.fetchval("SELECT 1")
    assert await database.fetchval("SELECT 1") == 1
    await database.close()


async def test_a_cancelled_call_leaves_a_pool_that_works(database: Database) -> None:
    for _ in range(6):
        call = asyncio.create_task(database.fetchval("SELECT pg_sleep(30)"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await database.fetchval("SELECT 1") == 1


async def test_a_read_is_repeated_when_its_idle_connection_was_ended_by_the_server(database: Database) -> None:
    """The client has not read the goodbye yet when it uses the connection again."""
    pid = await database.fetchval("SELECT pg_backend_pid()")
    async with database.transaction() as first, database.transaction() as second:
        assert await first.fetchval("SELECT pg_backend_pid()") == pid
        await second.fetchval("SELECT 1")
    for _ in range(3):
        await database.execute("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND datname = current_database()
        """)
        assert await asyncio.gather(*(database.fetchval("SELECT 1") for _ in range(4))) == [1, 1, 1, 1]


async def test_an_exception_inside_a_transaction_rolls_it_back(database: Database) -> None:
    await database.execute("CREATE TABLE t (a int)")

    async def interrupted() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await interrupted()
    assert await database.fetchval("SELECT count(*) FROM t") == 0


async def test_a_transaction_whose_failed_statement_was_swallowed_does_not_pass_for_stored(database: Database) -> None:

    async def swallowing() -> None:
        async with database.transaction() as connection:
            with suppress(IntegrityError):
                await connection.execute("INSERT INTO gaps VALUES ('v', '1d', 'A', now(), now(), 1)")

    with pytest.raises(IntegrityError, match="was not stored"):
        await swallowing()
    assert await database.fetchval("SELECT 1") == 1


async def test_wrong_values_and_broken_rules_are_told_apart(database: Database) -> None:
    with pytest.raises(InputError):
        await database.fetchval("SELECT 'x'::text::int")
    with pytest.raises(InputError):
        await database.fetchval("SELECT $1::int", "not a number")
    with pytest.raises(IntegrityError, match="schema"):
        await database.fetchval("SELECT * FROM nothing_like_it")
    assert await database.fetchval("SELECT 1") == 1


async def test_a_refused_login_names_the_setting_and_not_the_password(fresh_dsn: Secret) -> None:
    before, _, after = fresh_dsn.reveal().rpartition("@")
    wrong = Secret(f"{before.rpartition(':')[0]}:hunter2@{after}")
    with pytest.raises(ConfigError, match="TIDEMILL_POSTGRES_DSN") as refused:
        await Database.connect(wrong)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError):
        await Database.connect(Secret(f"{fresh_dsn.reveal().rpartition('/')[0]}/no_such_database"))


async def test_nobody_listening_is_unavailable_and_somebody_silent_is_a_deadline(fresh_dsn: Secret) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Secret(f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d")
        with pytest.raises(DeadlineError):
            await Database.connect(address, timeout=0.3)
    with pytest.raises(UnavailableError, match="Check that it runs"):
        await Database.connect(address)


async def test_work_in_progress_fails_when_the_pool_is_closed(fresh_dsn: Secret) -> None:
    database = await Database.connect(fresh_dsn)
    started = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as connection:
            started.set()
            await connection.fetchval("SELECT pg_sleep(30)")

    task = asyncio.create_task(work())
    await started.wait()
    await database.close()
    with pytest.raises(UnavailableError):
        await task
