"""Which experiment a run of the web UI is of: one by name, one by text, or the one that was run last."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from dagster._core.errors import DagsterResourceFunctionError

from resources.environments import resources
from resources.experiment import CHOICE_TAG, ExperimentResource
from tests.study.panels import small_experiment
from tidemill.config import Secret, load_settings
from tidemill.experiments.files import to_text
from tidemill.experiments.tracked import id_of, row_of
from tidemill.storage.experiments import record
from tidemill.study.workspace import open_workspace

THEN = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, migrated_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", migrated_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", redis_url.reveal())
    monkeypatch.setenv("TIDEMILL_CONNECTIONS", "2")
    return tmp_path


@pytest.fixture
def panel(tmp_path: Path) -> Path:
    (tmp_path / "panel.csv").write_text("symbol,date,open,high,low,close,volume\nAAA,2021-01-04,1,1,1,1,1\n")
    return tmp_path / "panel.csv"


def ran(name: str, panel: Path, at: int) -> str:
    """An experiment of that name was run; its id."""
    experiment = small_experiment(panel, name=name)
    with open_workspace(load_settings()) as opened:
        opened.call(record, opened.database, row_of(experiment, THEN + timedelta(hours=at)))
    return id_of(experiment)


class Started(msgspec.Struct):
    """The names of the experiments that the steps of a run were of, its tags, and what its log says."""

    names: list[str]
    tags: dict[str, str]
    log: str


def started(tags: dict[str, str] | None = None, **config: str) -> Started:
    """A run of one step. tags: those that it has already."""
    names: list[str] = []

    @dg.asset
    def first(experiment: ExperimentResource) -> None:
        names.append(experiment.study.experiment.name)

    with dg.DagsterInstance.ephemeral() as instance:
        told = {"resources": {"experiment": {"config": config}}} if config else {}
        done = dg.materialize([first], resources=resources, run_config=told, instance=instance, tags=tags)
        run = instance.get_run_by_id(done.run_id)
        assert run is not None
        log = "\n".join(entry.user_message for entry in instance.all_logs(done.run_id))
        return Started(names, dict(run.tags), log)


def test_a_new_home_runs_the_sample_and_says_so(home: Path) -> None:
    found = started()
    assert found.names == ["sample"]
    assert "No experiment was chosen and none was run yet, so this is the sample." in found.log
    assert found.tags[CHOICE_TAG] == "sample"


def test_without_a_choice_it_is_the_one_that_was_run_last_and_says_so(home: Path, panel: Path) -> None:
    ran("later", panel, 2)
    ran("earlier", panel, 1)
    found = started()
    assert found.names == ["later"]
    assert "this is the one that was run last: later" in found.log
    assert found.tags["tidemill/experiment"] == "later"


def test_one_is_chosen_by_name_or_by_id_or_of_those_that_ship(home: Path, panel: Path) -> None:
    ran("later", panel, 2)
    key = ran("earlier", panel, 1)
    assert [started(name=name).names for name in ("earlier", key, "sample")] == [["earlier"], ["earlier"], ["sample"]]
    assert started(yaml_text=to_text(small_experiment(panel, name="told"))).names == ["told"]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"name": "absent"}, "There is no experiment that was run named 'absent'"),
        ({"name": "sample", "yaml_text": "name: x"}, "by `name` or by `yaml_text`, not by both. Leave one of them out"),
    ],
)
def test_a_wrong_choice_says_what_to_do(home: Path, config: dict[str, str], told: str) -> None:
    with pytest.raises(DagsterResourceFunctionError) as caught:
        started(**config)
    assert told in str(caught.value.__cause__)


def test_what_is_run_meanwhile_is_nothing_to_a_later_step_of_the_run(home: Path, panel: Path) -> None:
    first = ran("first", panel, 1)
    ran("later", panel, 2)  # while the first step was at work: another process starts the next one
    assert started(tags={CHOICE_TAG: first}).names == ["first"]
