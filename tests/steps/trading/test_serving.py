"""Signals in Postgres: of each experiment its own, with what stands beside a weight."""

from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.study.panels import day_of, small_experiment
from tests.study.running import run, worked
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment, StrategySpec
from tidemill.experiments.tracked import id_of
from tidemill.queries.signals import served_signals
from tidemill.storage.deciders import in_force
from tidemill.storage.experiments import track, untrack
from tidemill.study.sources import study_of
from tidemill.study.tables import ENSEMBLE, SIGNALS
from tidemill.study.workspace import Workspace


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder)


def served(workspace: Workspace, experiment: Experiment, book: str | None = None) -> pl.DataFrame:
    return workspace.call(served_signals, study_of(workspace, experiment), id_of(experiment), book)


def kept(workspace: Workspace, experiment: Experiment, book: str = ENSEMBLE) -> pl.DataFrame:
    """What the lake holds of a book, where something is asked."""
    study = study_of(workspace, experiment)
    frame = study.lake.scan(SIGNALS, study.key, partitions=[book]).collect().drop_nulls("weight")
    return frame.sort("open_time", "symbol")


@pytest.mark.finished
def test_two_experiments_that_differ_in_a_parameter_keep_their_own(workspace: Workspace, experiment: Experiment) -> None:
    first = served(workspace, experiment)
    other = msgspec.structs.replace(experiment, strategy=StrategySpec(params={"quantile": 0.4}))
    run(workspace, other)
    assert not served(workspace, other).equals(first)
    for one in (experiment, other):
        frame = served(workspace, one)
        assert frame.equals(kept(workspace, one).select(frame.columns))


@pytest.mark.finished
def test_a_signal_says_by_whom_which_way_how_surely_and_until_when(workspace: Workspace, experiment: Experiment) -> None:
    frame = served(workspace, experiment)
    assert frame.equals(frame.sort("open_time", "symbol"))
    assert set(frame["direction"]) == {0, 1}  # a file of prices cannot be sold short
    assert frame.filter(pl.col("direction") != pl.col("weight").sign()).is_empty()
    assert (frame["known_at"] - frame["open_time"]).unique().to_list() == [timedelta(days=1)]
    assert (frame["expires_at"] - frame["known_at"]).unique().to_list() == [timedelta(days=1)]
    assert set(frame["status"]) == {"proposed"}
    rows = workspace.call(in_force, workspace.database, id_of(experiment), ENSEMBLE)
    assert frame["decider"].unique(maintain_order=True).to_list() == [row.id for row in rows]
    late = frame.filter(pl.col("decider").is_in([row.id for row in rows[-2:]]), pl.col("direction") != 0)
    assert late["confidence"].is_between(0.0, 1.0).all()
    assert (late["confidence"] != 0.5).any()
    assert set(frame.filter(pl.col("decider") == rows[0].id)["confidence"]) == {0.5}


@pytest.mark.finished
def test_a_second_experiment_of_the_same_content_is_served_without_work(workspace: Workspace, experiment: Experiment) -> None:
    renamed = msgspec.structs.replace(experiment, name="renamed")
    with pytest.raises(InputError, match="No signals of ensemble of the experiment 'renamed' are served"):
        served(workspace, renamed)
    _, reports = run(workspace, renamed)
    assert "signals" not in worked(reports)
    assert served(workspace, renamed).equals(served(workspace, experiment))


@pytest.mark.finished
def test_every_book_of_a_tracked_experiment_is_served_and_one_of_others(workspace: Workspace, experiment: Experiment) -> None:
    with pytest.raises(InputError, match="are served, since it is not tracked"):
        served(workspace, experiment, "ridge")
    workspace.call(track, workspace.database, id_of(experiment))
    run(workspace, experiment)
    for book in (ENSEMBLE, "ridge", "momentum"):
        frame = served(workspace, experiment, book)
        assert frame.equals(kept(workspace, experiment, book).select(frame.columns)), book
    workspace.call(untrack, workspace.database, [id_of(experiment)])
    run(workspace, experiment)
    with pytest.raises(InputError, match="are served, since it is not tracked"):
        served(workspace, experiment, "ridge")
    workspace.call(track, workspace.database, id_of(experiment))
    run(workspace, experiment)
    assert served(workspace, experiment, "ridge").height == kept(workspace, experiment, "ridge").height


@pytest.mark.finished
def test_a_new_day_is_added_to_what_is_served(workspace: Workspace, folder: Path, panel: pl.DataFrame) -> None:
    daily = small_experiment(folder, strategy=StrategySpec(params={"every": 1}))
    run(workspace, daily)
    before = served(workspace, daily)
    day_of(panel, 328).write_parquet(folder / "next.parquet")
    run(workspace, daily)
    after = served(workspace, daily)
    assert after.height > before.height
    assert after.head(before.height).equals(before)
