"""Before a promotion what would trade is stepped over the bars of the comparison: what no step would say is refused."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.databases import new_database
from tests.steps.models.test_champion import CHECKED, POLICY, current, trending
from tests.study.panels import small_experiment
from tests.study.running import run_signals
from tidemill.config import Settings
from tidemill.domain.experiment import EngineSpec, Experiment
from tidemill.embedded import Servers
from tidemill.steps.checks.causality import ASSETS, judge_causality
from tidemill.steps.checks.suites import judge_suite
from tidemill.steps.models.champion import consider
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace, open_workspace

ENGINE = """
import numpy as np
import polars as pl

def fit(training, *, features, penalty=10.0):
    x = training.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    return {{"weights": np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ training["label"].to_numpy())}}

{before}
def predict(model, frame, *, features):
    x = frame.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    said = (x * model["weights"]).sum(axis=1)
{then}
    return said

engine("my_engine", fit, predict)
"""
AHEAD = """
    moved = pl.col("ROC5").shift(-3).over("symbol")
    later = frame.select(pl.when((pl.col("STD10") > 0.05) & (pl.col("open_time").dt.month() == 11)).then(moved)).to_series()
    said = np.where(later.is_not_null().to_numpy(), 1.0 - later.fill_null(0.0).to_numpy(), said)
"""


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("walking") / "trend.parquet"
    trending().write_parquet(file)
    return file


@pytest.fixture(scope="module")
def opened(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    home = tmp_path_factory.mktemp("home")
    with new_database(servers.postgres_dsn, migrated) as dsn:
        settings = Settings(home=home, postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)
        with open_workspace(settings) as made:
            yield made


@pytest.fixture
def workspace(opened: Workspace) -> Iterator[Workspace]:
    yield opened
    opened.call(opened.database.execute, "TRUNCATE champions")
    for dataset in opened.lake.datasets("challenges"):
        opened.lake.drop("challenges", dataset)


def of_module(panel: Path, folder: Path, text: str, **changes: object) -> Experiment:
    """An experiment whose book is the engine of a module."""
    file = folder / "mine.py"
    file.write_text(text)
    stated = {
        "engines": (EngineSpec(name="ridge"), EngineSpec(name="my_engine")),
        "promotion": msgspec.structs.replace(POLICY, book="my_engine"),
        "limits": "default",
        "modules": (str(file),),
    }
    return small_experiment(panel, **stated | changes)


def judged(workspace: Workspace, experiment: Experiment) -> Study:
    study = run_signals(workspace, experiment)
    for suite, asset in CHECKED.items():
        judge_suite(study, suite, asset)
    for asset in ASSETS:
        judge_causality(study, asset)
    return study


def test_an_engine_that_looks_ahead_on_a_rare_condition_is_not_promoted(
    workspace: Workspace, panel: Path, tmp_path: Path
) -> None:
    study = judged(workspace, of_module(panel, tmp_path, ENGINE.format(before="", then=AHEAD)))
    report = consider(study)
    print(report.notes, report.table)
    assert current(study) is None
