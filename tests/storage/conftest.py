"""A migrated database of the test's own, and a loop whose unhandled exceptions fail the test."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tidemill.config import Secret
from tidemill.storage.bars import BarStore
from tidemill.storage.postgres import Database


@pytest.fixture
async def database(migrated_dsn: Secret) -> AsyncIterator[Database]:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    opened = await Database.connect(migrated_dsn, connections=4)
    yield opened
    await opened.close()
    assert unhandled == [], "the event loop saw an exception that nobody handled"


@pytest.fixture
def store(database: Database) -> BarStore:
    return BarStore(database)
