"""A home in which a small experiment was run as a person does it, and everything that `tidemill up` starts on it."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from orchestration.runner import DagsterOrchestrator
from tests.conftest import skip_or_fail
from tests.databases import new_database
from tests.study.panels import daily_bars, small_experiment
from tidemill.config import Settings
from tidemill.domain.experiment import Experiment
from tidemill.domain.ports import RunOutcome
from tidemill.embedded import Servers
from tidemill.experiments.files import to_text
from tidemill.storage.lake import Lake

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOK = PROJECT / "notebooks" / "explore_results.ipynb"
TIDEMILL = Path(sys.executable).with_name("tidemill")


@dataclass(frozen=True)
class Home:
    """Settings of a home, and an experiment that `run` runs there; `file` holds it as YAML."""

    settings: Settings
    experiment: Experiment
    file: Path

    def run(self) -> RunOutcome:
        return DagsterOrchestrator(self.settings).run(self.experiment, home=self.settings.home)

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of a process that works with this home."""
        assert self.settings.postgres_dsn is not None
        assert self.settings.redis_url is not None
        return {
            **os.environ,
            "TIDEMILL_HOME": str(self.settings.home),
            "TIDEMILL_POSTGRES_DSN": self.settings.postgres_dsn.reveal(),
            "TIDEMILL_REDIS_URL": self.settings.redis_url.reveal(),
            **more,
        }


@pytest.fixture(scope="package")
def new_database_home(
    servers: Servers, with_dagster: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Home]]:
    """Makes homes on empty databases of the shared server, with a panel of six symbols to run on."""
    databases = ExitStack()

    def make() -> Home:
        dsn = databases.enter_context(new_database(servers.postgres_dsn, with_dagster))
        folder = tmp_path_factory.mktemp("e2e")
        panel = folder / "panel"
        panel.mkdir()
        daily_bars().write_parquet(panel / "bars.parquet")
        experiment = small_experiment(panel)
        file = folder / "small.yaml"
        file.write_text(to_text(experiment), encoding="utf-8")
        settings = Settings(home=folder / "home", postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)
        return Home(settings, experiment, file)

    with databases:
        yield make


@pytest.fixture(scope="package")
def home(new_database_home: Callable[[], Home]) -> Home:
    """A home in which the small experiment has been run."""
    made = new_database_home()
    outcome = made.run()
    assert outcome.succeeded, outcome.failure
    return made


@pytest.fixture(scope="package")
def blocked(home: Home) -> RunOutcome:
    """A later run in the same home that a damaged bar stopped. The bar is whole again afterwards."""
    lake, month = Lake(home.settings.home / "lake"), "2021-06"
    held = lake.manifest("bars", "panel.1d", month)
    assert held is not None
    whole = lake.scan("bars", "panel.1d", partitions=[month]).collect()
    between = (pl.col("open") + pl.col("close")) / 2
    damaged = whole.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(between).otherwise(pl.col("high")).alias("high"))
    lake.write("bars", "panel.1d", month, damaged, fingerprint=held.fingerprint, metadata=held.metadata)
    try:
        return home.run()
    finally:
        lake.write("bars", "panel.1d", month, whole, fingerprint=held.fingerprint, metadata=held.metadata)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    found = os.environ.get("TIDEMILL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        skip_or_fail("browser", "no chromium on PATH; install it with: apt-get install chromium")
    return str(found)
