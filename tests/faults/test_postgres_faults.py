"""Postgres killed, frozen and cut off in the middle of a COPY and of a commit: no call hangs, nothing acknowledged is lost."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tests.faults.private_postgres import PrivatePostgres, Proxy
from tidemill.config import Secret
from tidemill.domain.errors import DeadlineError, UnavailableError
from tidemill.domain.intervals import Interval
from tidemill.keeper.folder import locate
from tidemill.storage.bars import BarStore
from tidemill.storage.migrations import migrate
from tidemill.storage.postgres import Database

MINUTE = Interval.parse("1m")
# The deadline that ships, which every kind of call is tried with. Most tests wait for a shorter one.
SHIPPED, SHORT = Database(Secret("postgresql://")).timeout, 2.0
# No call may take longer once something is wrong.
LIMIT = 5.0
FAULTS = ("killed", "frozen", "cut off")


def bars(month: int, rows: int = 40_000) -> pl.DataFrame:
    """Minute bars of one symbol within one month."""
    start = datetime(2024, month, 1, tzinfo=UTC)
    times = pl.datetime_range(start, start + timedelta(minutes=rows - 1), "1m", time_unit="us", time_zone="UTC", eager=True)
    price = pl.arange(rows, eager=True).cast(pl.Float64) + 100.0
    return pl.DataFrame(
        {"symbol": "A", "open_time": times, "open": price, "high": price + 1, "low": price - 1, "close": price, "volume": price}
    )


class Site:
    """A private Postgres, a proxy before it, and a store that goes through the proxy."""

    def __init__(self, server: PrivatePostgres, proxy: Proxy, database: Database) -> None:
        self.server, self.proxy, self.database = server, proxy, database
        self.store = BarStore(database)

    async def break_it(self, fault: str) -> None:
        if fault == "killed":
            await asyncio.to_thread(self.server.kill)
        elif fault == "frozen":
            await asyncio.to_thread(self.server.signal, signal.SIGSTOP)
        else:
            self.proxy.cut()

    async def repair(self, fault: str) -> None:
        if fault == "killed":
            await asyncio.to_thread(self.server.start)
        elif fault == "frozen":
            await asyncio.to_thread(self.server.signal, signal.SIGCONT)
        else:
            self.proxy.mend()

    async def write_with_fault(
        self, fault: str, when: Callable[[bytes], bool], frame: pl.DataFrame, *, deliver: bool
    ) -> UnavailableError:
        """Write while the fault strikes at the bytes that `when` picks; the write must fail within the limit of the fault."""
        self.proxy.trap(when, lambda: self.break_it(fault), deliver=deliver)
        writing = asyncio.create_task(self.store.write("v", MINUTE, frame))
        await self.proxy.sprung.wait()
        with pytest.raises(UnavailableError) as raised:
            async with asyncio.timeout(LIMIT - SHIPPED + self.database.timeout):
                await writing
        return raised.value

    async def rows(self) -> pl.DataFrame:
        return await self.store.read("v", MINUTE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgres]:
    folder = locate(tmp_path_factory.mktemp("faults"))
    running = PrivatePostgres(folder)
    running.start()
    yield running
    running.stop()
    shutil.rmtree(folder.root)


@pytest.fixture
def deadline() -> float:
    return SHORT


@pytest.fixture
async def site(server: PrivatePostgres, deadline: float) -> AsyncIterator[Site]:
    server.heal()
    async with asyncio.timeout(20):
        direct = await Database.connect(server.dsn)
        await direct.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await migrate(direct)
        await direct.close()
    proxy = Proxy(server.port)
    await proxy.start()
    database = await Database.connect(server.dsn_at(proxy.port), timeout=deadline)
    yield Site(server, proxy, database)
    async with asyncio.timeout(LIMIT):
        await database.close()
    await proxy.stop()


def after_bytes(count: int) -> Callable[[bytes], bool]:
    """True for the piece in which the client's byte number `count` travels."""
    seen = 0

    def when(data: bytes) -> bool:
        nonlocal seen
        seen += len(data)
        return seen >= count

    return when


def commits(data: bytes) -> bool:
    return b"COMMIT\x00" in data


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_copy_interrupted_by_a_fault_fails_in_time_and_leaves_nothing_half_written(site: Site, fault: str) -> None:
    acknowledged, new = bars(1), bars(2)
    await site.store.write("v", MINUTE, acknowledged)
    await site.write_with_fault(fault, after_bytes(2_000_000), new, deliver=True)
    await site.repair(fault)
    assert (await site.rows()).select(acknowledged.columns).equals(acknowledged)
    assert (await site.store.write("v", MINUTE, new)).inserted == new.height
    assert (await site.rows()).select(new.columns).equals(pl.concat([acknowledged, new]))


@pytest.mark.parametrize(("fault", "arrived"), [("killed", True), ("frozen", True), ("cut off", True), ("cut off", False)])
async def test_a_commit_without_an_answer_is_unknown_and_a_repeat_stores_it_once(site: Site, fault: str, arrived: bool) -> None:
    acknowledged, new = bars(1, 2_000), bars(2, 2_000)
    await site.store.write("v", MINUTE, acknowledged)
    error = await site.write_with_fault(fault, commits, new, deliver=arrived)
    assert isinstance(error, DeadlineError), "only this type says that the outcome is unknown"
    await site.repair(fault)
    stored = (await site.rows()).height - acknowledged.height
    assert stored in ({0, new.height} if arrived else {0})
    again = await site.store.write("v", MINUTE, new)
    assert (again.inserted, again.unchanged) == (new.height - stored, stored)
    assert (await site.rows()).select(new.columns).equals(pl.concat([acknowledged, new]))


@pytest.mark.parametrize("deadline", [SHIPPED])
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_kind_of_call_fails_in_time_and_the_same_pool_works_again_afterwards(
    site: Site, fault: str, deadline: float
) -> None:
    assert site.database.timeout == deadline
    await site.store.write("v", MINUTE, bars(1))
    calls = (
        lambda: site.database.fetchval("SELECT 1"),
        lambda: site.database.execute("SELECT 1"),
        lambda: site.rows(),
        lambda: site.store.write("v", MINUTE, bars(2)),
        lambda: Database.connect(site.server.dsn_at(site.proxy.port)),
        lambda: migrate(site.database),
    )
    await site.break_it(fault)
    async with asyncio.timeout(LIMIT):
        results = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    assert [type(result) for result in results if not isinstance(result, UnavailableError)] == []
    await site.repair(fault)
    assert await site.database.fetchval("SELECT 1") == 1
    assert (await site.rows()).height == bars(1).height


async def test_a_read_interrupted_by_a_kill_fails_in_time(site: Site) -> None:
    await site.store.write("v", MINUTE, bars(1))
    site.proxy.trap(lambda data: b"COPY" in data, lambda: site.break_it("killed"), deliver=True)
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(LIMIT):
            await site.rows()


async def test_closing_the_pool_of_a_frozen_server_does_not_wait_for_it(site: Site) -> None:
    await site.database.fetchval("SELECT 1")
    await site.break_it("frozen")
    async with asyncio.timeout(2):
        await site.database.close()
    with pytest.raises(UnavailableError, match="closed"):
        await site.database.fetchval("SELECT 1")


async def test_idle_connections_that_died_in_a_restart_are_replaced_without_an_error(site: Site) -> None:
    await site.store.write("v", MINUTE, bars(1, 100))
    await site.break_it("killed")
    await site.repair("killed")
    assert (await site.rows()).height == 100


async def test_a_writer_whose_client_was_cut_off_does_not_block_the_next_one(site: Site) -> None:
    """The server holds the month's lock for a dead client; it notices within seconds, and the next writer waits that long."""
    new = bars(2)
    await site.write_with_fault("cut off", after_bytes(2_000_000), new, deliver=True)
    direct = await Database.connect(site.server.dsn)
    site.proxy.mend()
    assert (await BarStore(direct).write("v", MINUTE, new)).inserted == new.height
    await direct.close()
