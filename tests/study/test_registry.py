"""Names are values of a study: two files that declare one name stand side by side in a process, whichever door is used."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.databases import new_database
from tests.study.panels import before_day, daily_bars, small_experiment
from tests.user_modules.conftest import example
from tidemill import lab
from tidemill.config import Secret, Settings
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, LabelSpec, StrategySpec
from tidemill.embedded import Servers
from tidemill.experiments.files import checked, to_text
from tidemill.study.registry import Registry
from tidemill.study.study import features_of, study_key

# The second file means something else by every name of the first.
OTHER = {
    "mean(close, 20)": "mean(close, 10)",
    "my_reversal=-change": "my_reversal=change * 2",
    ".clip(-0.1, 0.1)": ".clip(-0.05, 0.05)",
    "penalty=10.0": "penalty=500.0",
    '(x * model["weights"])': '(-x * model["weights"])',
    "held=2": "held=3",
}
# A process of its own: one experiment after the other through the notebook's door.
SCRIPT = """
import json, sys
from tidemill import lab
from tests.study.test_registry import evaluated
print(json.dumps([evaluated(path) for path in sys.argv[1:]]))
"""
Write = Callable[[str, str], str]


def other() -> str:
    text = example()
    for old, new in OTHER.items():
        assert old in text
        text = text.replace(old, new)
    return text


class Place(NamedTuple):
    """A folder with a panel, two files of one's own and an experiment of each; the rest of both experiments is the same."""

    folder: Path
    first: Path
    second: Path

    def experiment(self, file: Path) -> Path:
        path = file.with_suffix(".yaml")
        path.write_text(to_text(experiment_on(self.folder, file)))
        return path


def experiment_on(folder: Path, file: Path) -> Experiment:
    return small_experiment(
        folder,
        features=FeatureSpec(sets=(), names=("ROC5", "roc_10", "natr_14", "my_gap", "my_reversal")),
        engines=(EngineSpec(name="momentum"), EngineSpec(name="my_engine")),
        label=LabelSpec(name="my_label"),
        strategy=StrategySpec(name="my_strategy"),
        modules=(str(file),),
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "panel"
    folder.mkdir()
    before_day(daily_bars(), 328).write_parquet(folder / "base.parquet")
    first, second = tmp_path / "first" / "mine.py", tmp_path / "second" / "mine.py"
    for file, text in ((first, example()), (second, other())):
        file.parent.mkdir()
        file.write_text(text)
    return Place(folder, first, second)


def environment(home: Path, dsn: Secret, redis_url: Secret) -> dict[str, str]:
    return {
        "TIDEMILL_HOME": str(home),
        "TIDEMILL_POSTGRES_DSN": dsn.reveal(),
        "TIDEMILL_REDIS_URL": redis_url.reveal(),
        "TIDEMILL_CONNECTIONS": "4",
    }


@pytest.fixture
def home(tmp_path: Path, migrated_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path / "home", migrated_dsn, redis_url).items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    lab.close()


def evaluated(of: str) -> dict[str, Any]:
    """Everything that an experiment's names decide: predictions, book and trial of its own engine."""
    found = lab.cross_validate(of, "my_engine", splitter="walk_forward")
    rows = [*found.splits.drop("tested_from", "tested_until").rows(), *found.paths.rows()]
    return {"trial": found.trial, "figures": [[repr(value) for value in row] for row in rows]}


def apart(arguments: list[Path], home: Path, dsn: Secret, redis_url: Secret) -> list[dict[str, Any]]:
    """What a process of its own, with a home of its own, makes of these experiments."""
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    own = {**os.environ, **environment(home, dsn, redis_url)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=own, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


PROJECT = Path(__file__).resolve().parents[2]


# The first file finds a process that knows nothing yet; what could mix is seen at the second.
@pytest.mark.parametrize("alone", [(1,), pytest.param((0, 1), marks=pytest.mark.long)])
def test_two_experiments_whose_files_declare_the_same_names_get_each_its_own_results_in_one_process(
    home: Path, place: Place, servers: Servers, migrated: str, redis_url: Secret, alone: tuple[int, ...]
) -> None:
    files = [place.experiment(place.first), place.experiment(place.second)]
    one, two, again = evaluated(str(files[0])), evaluated(str(files[1])), evaluated(str(files[0]))
    assert one["trial"] != two["trial"]
    assert one["figures"] != two["figures"]
    assert again == one
    assert set(lab.trials()["trial"]) == {one["trial"], two["trial"]}
    for number in alone:
        with new_database(servers.postgres_dsn, migrated) as dsn:
            assert apart([files[number]], home / f"home-{number}", dsn, redis_url) == [(one, two)[number]]


def test_a_file_that_is_edited_is_taken_in_its_new_form_and_back(home: Path, place: Place) -> None:
    file = str(place.experiment(place.first))
    one, text = evaluated(file), place.first.read_text()
    place.first.write_text(other())
    changed = evaluated(file)
    assert changed["trial"] != one["trial"]
    assert changed == evaluated(str(place.experiment(place.second)))
    place.first.write_text(text)
    assert evaluated(file) == one


def test_a_file_that_a_notebook_loaded_frees_its_names_when_it_vanishes(home: Path, place: Place) -> None:
    bars = lab.bars(f"file:{place.folder}")
    lab.load(place.first)
    first = lab.features(bars, "my_gap")
    with pytest.raises(InputError, match=r"first/mine.py and .*second/mine.py both declare the engine 'my_engine'"):
        lab.load(place.second)
    assert lab.features(bars, "my_gap").equals(first)
    place.second.write_text("boom\n")
    with pytest.raises(InputError, match="does not exist on line 1"):
        lab.load(place.second)
    place.second.write_text(other())
    place.first.unlink()
    with pytest.raises(UnknownNameError):
        lab.features(bars, "my_gap")
    lab.load(place.second)
    assert not lab.features(bars, "my_gap").equals(first)


def test_what_a_notebook_loaded_stands_behind_the_files_of_an_experiment(home: Path, place: Place) -> None:
    alone = evaluated(str(place.experiment(place.second)))
    lab.load(place.first)
    assert evaluated(str(place.experiment(place.second))) == alone
    unnamed = place.experiment(place.first)
    unnamed.write_text(unnamed.read_text().replace(f"- {place.first}\n", "").replace("modules:", "modules: []"))
    assert evaluated(str(unnamed)) == evaluated(str(place.experiment(place.first)))


def test_what_two_files_declare_lies_apart(place: Place) -> None:
    keys = set()
    for file in (place.first, place.second):
        experiment = experiment_on(place.folder, file)
        registry = Registry().with_files(experiment.modules)
        keys |= {study_key(experiment, "panel", registry), features_of(experiment, registry).fingerprint}
    assert len(keys) == 4


def test_a_registry_holds_what_ships_the_files_of_the_settings_and_those_of_an_experiment_which_go_before(place: Place) -> None:
    settled = Registry.of(Settings(modules=(place.first, place.first.with_name("absent.py"))))
    assert settled.features.find("my_gap").expression.lookback == 20
    both = settled.with_files([place.second])
    assert both.features.find("my_gap").expression.lookback == 10
    assert settled.features.find("my_gap").expression.lookback == 20
    assert both.engines.find("my_engine") is not settled.engines.find("my_engine")
    assert both.engines.find("ridge") is settled.engines.find("ridge")
    with pytest.raises(UnknownNameError):
        Registry().strategies.find("my_strategy")
    with pytest.raises(InputError, match="both declare"):
        Registry().with_files([place.first, place.second])


def test_a_file_that_cannot_be_loaded_leaves_nothing_behind(place: Place) -> None:
    experiment = experiment_on(place.folder, place.first)
    assert checked(experiment).label.horizon == 3
    place.first.write_text(example() + "boom\n")
    with pytest.raises(InputError, match="uses a name that does not exist on line"):
        checked(experiment)
    with pytest.raises(UnknownNameError):
        Registry().features.find("my_gap")
    place.first.write_text(example())
    assert checked(experiment).label.horizon == 3


def test_a_label_brings_its_horizon_and_one_that_there_is_not_is_named(place: Place) -> None:
    experiment = experiment_on(place.folder, place.first)
    registry = Registry().with_files(experiment.modules)
    assert registry.known(experiment).label.horizon == 3
    with pytest.raises(UnknownNameError, match="my_label"):
        Registry().known(experiment)
