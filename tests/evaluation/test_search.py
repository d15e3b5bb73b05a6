"""Hyper-parameter search: nothing of the held-out folds, every trial counted, the same after an interruption."""

from pathlib import Path

import polars as pl
import pytest

from tests.study.changed_code import change_line
from tests.study.panels import small_experiment
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import EngineSpec, FeatureSpec, NeutraliseSpec, StrategySpec
from tidemill.evaluation import search as searching
from tidemill.evaluation.search import experiment_text, search
from tidemill.experiments.files import load_experiment
from tidemill.models.registry import engine as engine_named
from tidemill.queries.trials import list_trials
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    return study_of(workspace, small_experiment(folder))


def test_the_best_of_the_trials_is_chosen_and_scored_once_on_the_held_out_folds(study: Study) -> None:
    found = search(study, "ridge", trials=4)
    assert [row["number"] for row in found.trials] == [0, 1, 2, 3]
    assert found.value == max(row["value"] for row in found.trials)
    assert 1e-3 <= found.params["penalty"] <= 1e3
    assert found.folds + found.held_out_folds == len(study.folds)
    assert found.held_out.rank_ic is not None
    [spec] = [one for one in found.experiment.engines if one.name == "ridge"]
    assert spec.params == found.params


def test_every_trial_is_in_the_ledger_with_its_parameters_and_a_rerun_counts_once(study: Study) -> None:
    found = search(study, "ridge", trials=3)
    counted = study.workspace.call(list_trials, study.workspace.database)
    assert counted.height == 4  # three, and the best one on the tail
    assert set(counted["kind"]) == {"search"}
    assert found.held_out.trial in set(counted["trial"])
    search(study, "ridge", trials=3)
    assert study.workspace.call(list_trials, study.workspace.database).height == 4


def test_a_search_that_was_stopped_goes_on_and_finds_what_an_uninterrupted_one_finds(study: Study) -> None:
    told: list[int] = []
    search(study, "ridge", trials=2, told=lambda number, value: told.append(number))
    whole = search(study, "ridge", trials=5, told=lambda number, value: told.append(number))
    assert told == [0, 1, 2, 3, 4]
    searching.journal_path(study, "ridge").unlink()
    assert search(study, "ridge", trials=5) == whole


def test_the_journal_holds_lines_of_json_and_no_pickle(study: Study) -> None:
    import json

    search(study, "ridge", trials=1)
    lines = searching.journal_path(study, "ridge").read_text().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_what_happens_in_the_held_out_folds_changes_no_trial(
    study: Study, folder: Path, panel: pl.DataFrame, workspace: Workspace
) -> None:
    first = search(study, "ridge", trials=2, held_out=2)
    cut = study.folds[-2].train_end
    later = pl.col("date") > pl.lit(cut.date())
    prices = [
        pl.when(later).then(pl.col(name) * 3.0).otherwise(pl.col(name)).alias(name) for name in ("open", "high", "low", "close")
    ]
    folder.joinpath("base.parquet").unlink()
    panel.filter(pl.col("date") <= study.times[-1].date()).with_columns(prices).write_parquet(folder / "other.parquet")
    other = search(study_of(workspace, small_experiment(folder)), "ridge", trials=2, held_out=2)
    assert [row["value"] for row in other.trials] == [row["value"] for row in first.trials]
    assert other.held_out != first.held_out


def test_the_sharpe_ratio_after_costs_can_be_the_metric(study: Study) -> None:
    found = search(study, "ridge", trials=2, metric="sharpe")
    assert found.metric == "sharpe"
    assert found.value == max(row["value"] for row in found.trials)


def test_trials_of_another_book_do_not_compete(
    study: Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, sectors = list[int](), tmp_path / "sectors.csv"
    spec = StrategySpec(neutralise=NeutraliseSpec(by="sector", sector_file=str(sectors)))

    def asked() -> list[int]:
        """Numbers of the trials that a search makes now: none where it knows them."""
        told.clear()
        neutral = study_of(study.workspace, small_experiment(folder, strategy=spec))
        search(neutral, "ridge", trials=1, metric="sharpe", told=lambda number, value: told.append(number))
        return list(told)

    sectors.write_text("symbol,sector\nAAA,x\nBBB,x\n")
    assert asked() == [0]
    assert asked() == []
    for module in ("tidemill.matching.kernel", "tidemill.strategies.neutral", "tidemill.strategies.quantile"):
        with monkeypatch.context() as patched:
            change_line(patched, module)
            assert asked() == [0], module
    assert asked() == []
    sectors.write_text("symbol,sector\nAAA,x\nCCC,x\n")
    assert asked() == [0]


def test_the_result_can_be_written_as_an_experiment_and_read_again(study: Study, tmp_path: Path) -> None:
    found = search(study, "ridge", trials=1)
    file = tmp_path / "best.yaml"
    file.write_text(experiment_text(found.experiment), encoding="utf-8")
    assert load_experiment(file) == found.experiment


def test_an_engine_without_the_features_that_it_needs_is_refused_before_a_bar_is_stored(study: Study, folder: Path) -> None:
    few = small_experiment(folder, features=FeatureSpec(sets=(), names=("rsi_14",)), engines=(EngineSpec(name="ridge"),))
    with pytest.raises(InputError, match="mean_reversion needs the features"):
        search(study_of(study.workspace, few), "mean_reversion", trials=1)
    assert not study.lake.manifests("bars", study.dataset.bars_key)


def test_what_cannot_be_searched_is_refused(study: Study) -> None:
    with pytest.raises(InputError, match="declares no parameters"):
        search(study, "momentum", trials=1)
    with pytest.raises(UnknownNameError, match="ridge"):
        search(study, "oracle", trials=1)
    with pytest.raises(InputError, match="held out"):
        search(study, "ridge", trials=1, held_out=99)


@pytest.mark.parametrize("name", ["ridge", "lightgbm", "transformer"])
def test_both_ends_of_every_declared_space_are_parameters_of_the_engine(name: str) -> None:
    from tidemill.models.base import decoded

    info = engine_named(name).info
    assert info.params is not None
    for end in ("low", "high"):
        values = {one.name: round(getattr(one, end)) if one.whole else getattr(one, end) for one in info.space}
        decoded(info.params, values, name)
