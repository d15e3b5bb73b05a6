"""A workspace of the test's own on the shared server: empty, or in the home of a finished run where a test asks for that.

A test that is marked `finished` begins where `run` of `small_experiment(folder)` ended: home, panel and database are copies of
those of one run, made for all such tests of a session. To run that again finds no work. Paths are a part of what is stored, so
all of these tests stand in the same place, one after the other. `finished("name")` begins with the fixture of that name, which
is what a file's own tests all begin with, `grown` from that run.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    @contextmanager
    def grown(self, servers: Servers, kept: Path, more: Callable[[Workspace], object]) -> Iterator["Finished"]:
        """The same place after more was done in it. kept: an empty folder for the copy."""
        self.restore()
        with new_database(servers.postgres_dsn, self.database) as dsn:
            with open_workspace(_settings(self.place, dsn, servers.redis_url)) as workspace:
                more(workspace)
            yield _kept(self.place, kept, dsn)


def _kept(place: Path, kept: Path, dsn: Secret) -> Finished:
    for name in ("home", "panel"):
        _copy(place / name, kept)
    return Finished(place, kept, name_of(dsn))


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
        yield _kept(place, kept, dsn)


@pytest.fixture
def begun(request: pytest.FixtureRequest) -> Finished | None:
    """What a test that is marked `finished` begins with, its files as they were; None for every other test."""
    mark = request.node.get_closest_marker("finished")
    if mark is None:
        return None
    found: Finished = request.getfixturevalue(*mark.args or ("finished_run",))
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
