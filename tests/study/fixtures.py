"""A workspace of the test's own: an empty database on the shared server, a lake in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import before_day, daily_bars
from tidemill.config import Secret, Settings
from tidemill.study.workspace import Workspace, open_workspace


@pytest.fixture
def settings(tmp_path: Path, fresh_dsn: Secret, redis_url: Secret) -> Settings:
    return Settings(home=tmp_path / "home", postgres_dsn=fresh_dsn, redis_url=redis_url, connections=4)


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    with open_workspace(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def panel() -> pl.DataFrame:
    """330 days of six symbols."""
    return daily_bars()


@pytest.fixture
def folder(tmp_path: Path, panel: pl.DataFrame) -> Path:
    """An import folder with all days but the last two."""
    made = tmp_path / "panel"
    made.mkdir()
    before_day(panel, 328).write_parquet(made / "base.parquet")
    return made
