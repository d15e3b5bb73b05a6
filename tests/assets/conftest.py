"""The main job on a small panel: run, run again, run on a damaged lake. Each is a real Dagster run on a database of its own."""

from collections.abc import Iterator

import polars as pl
import pytest
from dagster import DagsterInstance

from orchestration.instance import instance
from orchestration.runner import DagsterOrchestrator
from tests.databases import new_database
from tests.study.panels import daily_bars, small_experiment
from tidemill.config import Settings
from tidemill.domain.experiment import Experiment
from tidemill.domain.ports import RunOutcome
from tidemill.embedded import Servers
from tidemill.storage.lake import Lake

MONTH = "2021-06"


@pytest.fixture(scope="package")
def settings(tmp_path_factory: pytest.TempPathFactory, servers: Servers, with_dagster: str) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("main_job") / "home"
    with new_database(servers.postgres_dsn, with_dagster) as dsn:
        yield Settings(home=home, postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)


@pytest.fixture(scope="package")
def opened(settings: Settings) -> Iterator[DagsterInstance]:
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    found = Servers(postgres_dsn=settings.postgres_dsn, redis_url=settings.redis_url, embedded=False)
    with instance(settings, found) as made:
        yield made


@pytest.fixture(scope="package")
def experiment(settings: Settings) -> Experiment:
    folder = settings.home.parent / "panel"
    folder.mkdir()
    daily_bars().write_parquet(folder / "bars.parquet")
    return small_experiment(folder)


def _run(settings: Settings, experiment: Experiment) -> RunOutcome:
    return DagsterOrchestrator(settings).run(experiment, home=settings.home)


@pytest.fixture(scope="package")
def first(settings: Settings, experiment: Experiment) -> RunOutcome:
    return _run(settings, experiment)


@pytest.fixture(scope="package")
def second(settings: Settings, experiment: Experiment, first: RunOutcome) -> RunOutcome:
    """The same again, with nothing new."""
    assert first.succeeded, first.failure
    return _run(settings, experiment)


@pytest.fixture(scope="package")
def broken(settings: Settings, experiment: Experiment, second: RunOutcome) -> RunOutcome:
    """Once more, after a bar in the lake was damaged: its high lies between its open and its close."""
    assert second.succeeded, second.failure
    lake = Lake(settings.home / "lake")
    held = lake.manifest("bars", "panel.1d", MONTH)
    assert held is not None
    frame = lake.scan("bars", "panel.1d", partitions=[MONTH]).collect()
    high = (
        pl.when(pl.int_range(pl.len()) == 3)
        .then((pl.col("open") + pl.col("close")) / 2)
        .otherwise(pl.col("high"))
        .alias("high")
    )
    lake.write("bars", "panel.1d", MONTH, frame.with_columns(high), fingerprint=held.fingerprint, metadata=held.metadata)
    return _run(settings, experiment)
