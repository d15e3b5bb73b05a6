"""A workspace of the test's own on the shared server: empty, or in the home of a finished run where a test asks for that.

A test that is marked `finished` begins where `run` of `small_experiment(folder)` ended: home, panel and database are copies of
those of one run, made for all such tests of a session. To run that again finds no work. Paths are a part of what is stored, so
all of these tests stand in the same place, one after the other.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from tests.databases import name_of, new_database
from tests.study.panels import before_day, daily_bars, small_experiment
from tidemill.config import Secret, Settings
from tidemill.embedded import Servers
from tidemill.study.workspace import Workspace, open_workspace


class Finished(NamedTuple):
    """A folder with `home` and `panel`, a copy of both as they were when the run had ended, and the name of its database."""

    place: Path
    kept: Path
    database: str

    def restore(self) -> None:
        """Home and panel as they were, times of the files included."""
        for name in ("home", "panel"):
            shutil.rmtree(self.place / name, ignore_errors=True)
            _copy(self.kept / name, self.place)


def _copy(folder: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", folder, to], check=True, timeout=60)


def _settings(place: Path, dsn: Secret, redis_url: Secret) -> Settings:
    return Settings(home=place / "home", postgres_dsn=dsn, redis_url=redis_url, connections=4)


def _imported(place: Path, panel: pl.DataFrame) -> Path:
    """An import folder with all days but the last two."""
    folder = place / "panel"
    folder.mkdir()
    before_day(panel, 328).write_parquet(folder / "base.parquet")
    return folder


@pytest.fixture(scope="session")
def finished_run(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The one run that tests marked `finished` begin with, whichever panel is that of the folder which asks first."""
    from tests.study.running import run  # all of the steps: not for sessions that need none

    place, kept = tmp_path_factory.mktemp("finished"), tmp_path_factory.mktemp("kept")
    folder = _imported(place, daily_bars())
    with new_database(servers.postgres_dsn, migrated) as dsn:
        with open_workspace(_settings(place, dsn, servers.redis_url)) as workspace:
            run(workspace, small_experiment(folder))
        for name in ("home", "panel"):
            _copy(place / name, kept)
        yield Finished(place, kept, name_of(dsn))


@pytest.fixture
def begun(request: pytest.FixtureRequest) -> Finished | None:
    """What a test that is marked `finished` begins with, its files as they were; None for every other test."""
    if request.node.get_closest_marker("finished") is None:
        return None
    found: Finished = request.getfixturevalue("finished_run")
    found.restore()
    return found


@pytest.fixture
def settings(begun: Finished | None, tmp_path: Path, servers: Servers, migrated: str, redis_url: Secret) -> Iterator[Settings]:
    place, template = (tmp_path, migrated) if begun is None else (begun.place, begun.database)
    with new_database(servers.postgres_dsn, template) as dsn:
        yield _settings(place, dsn, redis_url)


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    with open_workspace(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def panel() -> pl.DataFrame:
    """330 days of six symbols."""
    return daily_bars()


@pytest.fixture
def folder(begun: Finished | None, tmp_path: Path, panel: pl.DataFrame) -> Path:
    """An import folder with all days but the last two."""
    return _imported(tmp_path, panel) if begun is None else begun.place / "panel"
