"""The database of the test's home, asked in the test's own loop, and the loop's work that a read must not stop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.study.panels import small_experiment
from tidemill.config import Settings
from tidemill.domain.experiment import Experiment
from tidemill.storage.lake import Lake
from tidemill.storage.migrations import migrate
from tidemill.storage.postgres import Database


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    assert settings.postgres_dsn is not None
    opened = await Database.connect(settings.postgres_dsn, connections=4)
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder)


class Meanwhile(Protocol):
    """`await meanwhile(query, owner, name)`: its answer; its call of `owner.name` waits until the loop had a turn."""

    def __call__(self, query: Awaitable[Any], owner: object, name: str) -> Awaitable[Any]: ...


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    async def answered(query: Awaitable[Any], owner: object, name: str) -> Any:
        inside, turn, real = threading.Event(), threading.Event(), getattr(owner, name)

        def waiting(*args: Any, **more: Any) -> Any:
            inside.set()
            assert turn.wait(20.0), f"the loop was stopped by {name}"
            return real(*args, **more)

        monkeypatch.setattr(owner, name, waiting)
        asked = asyncio.ensure_future(query)
        assert await asyncio.to_thread(inside.wait, 20.0)
        turn.set()
        return await asked

    return answered
