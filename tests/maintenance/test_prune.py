"""`tidemill data prune`: what nothing needs goes when a person says so, and only that."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.faults.killing import Kill, When, Write
from tests.faults.running import Place, differences, figures
from tests.study.fixtures import Finished
from tests.study.panels import small_experiment
from tests.study.running import run, worked
from tidemill.config import Settings
from tidemill.domain.experiment import Experiment, LabelSpec
from tidemill.embedded import Servers
from tidemill.experiments.tracked import id_of
from tidemill.storage.champions import Nominee, current, promote
from tidemill.storage.deciders import StoredDecider, in_force
from tidemill.storage.experiments import track
from tidemill.storage.results import signals_of
from tidemill.storage.trials import read_trials
from tidemill.study.deciders import decider, stored_decider, window_of
from tidemill.study.sources import study_of
from tidemill.study.tables import ENSEMBLE
from tidemill.study.workspace import Workspace, open_workspace
from tidemill.trading.decider import Decider

PROJECT = Path(__file__).resolve().parents[2]
NOW = ("data", "prune", "--older-than", "0d")


EARLIER, LATER = LabelSpec(horizon=3), LabelSpec(horizon=4)


@pytest.fixture
def earlier(folder: Path) -> Experiment:
    """What was run first, and changed since under its name."""
    return small_experiment(folder, label=EARLIER)


@pytest.fixture
def later(folder: Path) -> Experiment:
    """The newest of that name: other labels, and so other models, from the same features."""
    return small_experiment(folder, label=LATER)


@pytest.fixture(scope="module")
def both_run(finished_run: Finished, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """A home in which both were run, each judged among the trials of both."""

    def more(workspace: Workspace) -> None:
        folder = finished_run.place / "panel"
        for label in (LATER, EARLIER, LATER):
            run(workspace, small_experiment(folder, label=label))

    with finished_run.grown(servers, tmp_path_factory.mktemp("both"), more) as grown:
        yield grown


def environment(settings: Settings) -> dict[str, str]:
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    names = {
        "HOME": str(settings.home),
        "POSTGRES_DSN": settings.postgres_dsn.reveal(),
        "REDIS_URL": settings.redis_url.reveal(),
        "CONNECTIONS": "4",
    }
    return os.environ | {f"TIDEMILL_{name}": value for name, value in names.items()}


def command(
    settings: Settings, *arguments: str, kill: Kill | None = None, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    module = ["tidemill.cli.main"] if kill is None else ["tests.faults.killed_command", msgspec.json.encode(kill).decode()]
    return subprocess.run(
        [sys.executable, "-m", *module, *arguments],
        env=environment(settings), cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120,
        stdin=stdin,
    )  # fmt: skip


def everything(settings: Settings) -> dict[str, str]:
    given = environment(settings)
    return figures(Place(home=given["TIDEMILL_HOME"], postgres=given["TIDEMILL_POSTGRES_DSN"], redis="", panel=""))


def kinds(answer: subprocess.CompletedProcess[str]) -> Counter[str]:
    assert answer.returncode == 0, answer
    return Counter(item["kind"] for item in json.loads(answer.stdout)["items"])


@pytest.mark.finished("both_run")
def test_the_rest_is_named_and_goes_when_it_is_confirmed_and_is_made_again_with_the_same_numbers(
    settings: Settings, earlier: Experiment, later: Experiment
) -> None:
    before = everything(settings)
    assert kinds(command(settings, "data", "prune", "--json")) == Counter()  # all of it is younger than thirty days
    named = kinds(command(settings, *NOW, "--json"))
    assert named["report"] == 1
    assert named["model"] == named["decider"] == 24
    assert named["signals"] == 8  # those of the book that would be traded
    assert {"table signals", "table predictions", "table labels", "table metrics"} <= set(named)
    assert not {"table bars", "table features", "table trials", "feature state"} & set(named)

    told = command(settings, *NOW)
    assert "Nothing was removed. --yes removes it." in told.stdout
    assert everything(settings) == before

    removed = command(settings, *NOW, "--yes")
    assert removed.returncode == 0, removed
    assert "Removed: " in removed.stdout
    assert kinds(command(settings, *NOW, "--json")) == Counter()
    after = everything(settings)
    assert not [name for name in before.keys() - after.keys() if name.startswith("lake/trials")]
    assert after["postgres/trials"] == before["postgres/trials"]
    with open_workspace(settings) as workspace:
        assert worked(run(workspace, later)[1]) == set()
        trials = workspace.call(read_trials, workspace.database)
        assert worked(run(workspace, earlier)[1])
        assert workspace.call(read_trials, workspace.database).equals(trials)
        assert worked(run(workspace, earlier)[1]) == set()
    assert not differences(everything(settings), before), differences(everything(settings), before)[:30]


KILLS: tuple[tuple[str, int, When], ...] = (
    ("reports", 1, "after"),
    ("postgres/equity", 1, "before"),
    ("postgres/signals", 1, "after"),
    ("postgres/predictions", 1, "before"),
    ("postgres/models", 1, "after"),
    ("models/artifacts", 3, "after"),
)
# Between a file and the rows that it speaks of, and in the midst of folders. The others are long.
FEW_KILLS = {("postgres/predictions", 1, "before"), ("models/artifacts", 3, "after")}


@pytest.mark.finished("both_run")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("table", "number", "when"), [pytest.param(*kill, marks=[] if kill in FEW_KILLS else pytest.mark.long) for kill in KILLS]
)
def test_a_kill_leaves_what_remains_whole_and_the_next_prune_finishes(
    settings: Settings, earlier: Experiment, later: Experiment, table: str, number: int, when: When
) -> None:
    before = everything(settings)
    killed = command(settings, *NOW, "--yes", kill=Kill(Write(table, number), when))
    assert killed.returncode == -signal.SIGKILL, killed
    with open_workspace(settings) as workspace:
        assert worked(run(workspace, later)[1]) == set()
        if number == 1:  # some run again before anybody prunes again
            run(workspace, earlier)
    if number == 1:
        assert not differences(everything(settings), before), differences(everything(settings), before)[:30]
        return
    assert command(settings, *NOW, "--yes").returncode == 0
    assert kinds(command(settings, *NOW, "--json")) == Counter()
    assert not list((settings.home / "models" / "artifacts").glob(".tmp-*"))
    with open_workspace(settings) as workspace:
        run(workspace, earlier)
    assert not differences(everything(settings), before), differences(everything(settings), before)[:30]


def own(settings: Settings, experiment: Experiment, table: str = "deciders") -> int:
    """Rows of an experiment."""
    with open_workspace(settings) as workspace:
        query = f"SELECT count(*) FROM {table} WHERE experiment = $1"
        return int(workspace.call(workspace.database.fetchval, query, id_of(experiment)))


def stored_models(settings: Settings) -> set[str]:
    return {path.name for path in (settings.home / "models" / "artifacts").glob("[!.]*")}


def pruned(settings: Settings) -> Counter[str]:
    answer = command(settings, *NOW, "--yes", "--json")
    assert kinds(command(settings, *NOW, "--json")) == Counter()
    return kinds(answer)


@pytest.mark.finished("both_run")
def test_what_is_tracked_stays(settings: Settings, earlier: Experiment) -> None:
    with open_workspace(settings) as workspace:
        workspace.call(track, workspace.database, id_of(earlier))
    assert pruned(settings) == Counter()
    with open_workspace(settings) as workspace:
        assert worked(run(workspace, earlier)[1]) == set()


@pytest.mark.finished("both_run")
def test_the_newest_run_of_each_name_stays(settings: Settings, earlier: Experiment) -> None:
    renamed = msgspec.structs.replace(earlier, name="another")
    with open_workspace(settings) as workspace:
        run(workspace, renamed)
    assert set(pruned(settings)) == {"decider", "signals"}  # those of the first name; the rest is that of the other too
    assert (own(settings, earlier), own(settings, renamed)) == (0, 24)
    with open_workspace(settings) as workspace:
        assert worked(run(workspace, renamed)[1]) == set()
        run(workspace, earlier)
        assert workspace.call(signals_of, workspace.database, id_of(earlier), ENSEMBLE).height > 0


@pytest.mark.finished("both_run")
def test_champions_stay_the_current_and_the_one_before(settings: Settings, earlier: Experiment, later: Experiment) -> None:
    with open_workspace(settings) as workspace:
        made = [promoted(workspace, earlier, later, fold) for fold in range(3)]
    models = [model for one in made[1:] for model in one.models.values()]
    pruned(settings)
    assert set(models) <= stored_models(settings)
    assert made[0].models["ridge"] not in stored_models(settings)
    with open_workspace(settings) as workspace:
        left = workspace.call(in_force, workspace.database, id_of(earlier))
        rows = workspace.call(workspace.database.fetch, "SELECT id FROM deciders WHERE made_for = 'champion'")
    assert {row["id"] for row in rows} == {one.id for one in made[1:]}
    assert [row.id for row in left if row.made_for == "champion"] == [made[2].id]


def promoted(workspace: Workspace, of: Experiment, experiment: Experiment, fold: int) -> Decider:
    """A champion with the models of one experiment, promoted by another, so that its models alone are needed."""
    study = study_of(workspace, of)
    window = study.folds[fold]
    made = decider(study, "ridge", window_of(study, window))
    nominee = Nominee(
        dataset=study.dataset.key,
        book="ridge",
        models=made.models,
        experiment=experiment,
        trained_until=window.train_end,
        reason="",
        evidence={},
        decider=stored_decider(id_of(of), made, window.test_start),
    )
    held = workspace.call(current, workspace.database, study.dataset.key)
    workspace.call(promote, workspace.database, nominee, instead_of=held.id if held else None)
    return made


@pytest.mark.finished("both_run")
def test_what_an_account_was_told_by_stays_with_its_models_and_what_it_succeeds(
    settings: Settings, earlier: Experiment
) -> None:
    with open_workspace(settings) as workspace:
        first, second, other = workspace.call(in_force, workspace.database, id_of(earlier), "ridge")[:3]
        call, execute = workspace.call, workspace.database.execute
        call(execute, _TOLD, id_of(earlier), second.id)
        call(execute, "UPDATE deciders SET succeeds = $1 WHERE id = $2", first.id, second.id)
    pruned(settings)
    assert own(settings, earlier, "signals") == 1
    assert own(settings, earlier) == 2
    models = [model_of(row) in stored_models(settings) for row in (first, second, other)]
    assert models == [True, True, False]


_TOLD = """
INSERT INTO signals (experiment, book, decider, account, mode, symbol, open_time, weight, direction, confidence, known_at,
    status)
VALUES ($1, 'ridge', $2, 'mine', 'paper', 'AAA', '2021-06-01', 0.1, 1, 0.5, '2021-06-02', 'traded')
"""


def model_of(row: StoredDecider) -> str:
    model: str = json.loads(row.content)["models"]["ridge"]
    return model


@pytest.mark.finished("both_run")
def test_nothing_goes_while_it_cannot_be_told_what_is_needed(settings: Settings, later: Experiment, folder: Path) -> None:
    folder.rename(folder.with_name("gone"))
    before = everything(settings)
    answer = command(settings, *NOW, "--yes")
    assert answer.returncode == 1
    assert f"what the experiment small ({id_of(later)}) needs cannot be told" in answer.stderr
    assert everything(settings) == before
    folder.with_name("gone").rename(folder)


@pytest.mark.finished("both_run")
@pytest.mark.parametrize(("said", "removed"), [(b"n\n", False), (b"y\n", True)])
def test_at_a_terminal_a_person_is_asked(settings: Settings, said: bytes, *, removed: bool) -> None:
    terminal, stdin = pty.openpty()
    os.write(terminal, said)
    answer = command(settings, *NOW, stdin=stdin)
    os.close(terminal)
    os.close(stdin)
    assert answer.returncode == 0, answer
    assert "Remove all of this?" in answer.stderr
    assert ("Removed: " in answer.stdout) == removed
    assert (kinds(command(settings, *NOW, "--json")) == Counter()) == removed


@pytest.mark.parametrize("age", ["", "30", "d", "-1d", "1y", "1.5d", "٣d", "99999999999d"])
def test_an_age_that_is_none_is_refused(settings: Settings, age: str) -> None:
    answer = command(settings, "data", "prune", "--older-than", age)
    assert answer.returncode == 2
    assert "is not an age. Write 30d, 12h or 4w." in answer.stderr


def test_a_new_home_has_nothing_to_remove(settings: Settings) -> None:
    answer = command(settings, *NOW, "--yes")
    assert (answer.returncode, answer.stdout) == (0, "There is nothing to remove.\n")
