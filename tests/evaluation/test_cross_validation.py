"""One engine under each splitter: what is tested, what it is trained on, and the one trial that is counted."""

from pathlib import Path

import pytest

from tests.study.panels import small_experiment
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.evaluation.cross_validation import CrossValidation, Plan, Splitter, cross_validate
from tidemill.queries.trials import compare_trials, list_trials
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    return study_of(workspace, small_experiment(folder))


def validated(study: Study, splitter: Splitter, **plan: int) -> CrossValidation:
    return cross_validate(study, "ridge", Plan(splitter=splitter, embargo=5, **plan))


def test_every_splitter_scores_every_tested_bar_once_a_path_and_counts_one_trial(study: Study) -> None:
    known = study.workspace
    folded = validated(study, "purged_k_fold", folds=5)
    assert (folded.splits.height, folded.paths.height, folded.embargo) == (5, 1, 5)
    combined = validated(study, "combinatorial", folds=5, test_folds=2)
    assert (combined.splits.height, combined.paths.height) == (10, 4)
    forward = validated(study, "walk_forward")
    assert (forward.splits.height, forward.paths.height) == (8, 1)
    labelled = study.training_frame["label"].count()
    for found in (folded, combined):
        assert (found.splits["trained"] + found.splits["tested"] < labelled).all()  # purge and embargo took some
        assert found.splits.filter(found.splits["tested"] <= 0).is_empty()
        assert (found.paths["ic_low"] < found.paths["ic"]).all()
    trials = known.call(list_trials, known.database)
    assert sorted(trials["trial"]) == sorted([folded.trial, combined.trial, forward.trial])
    assert trials["kind"].unique().to_list() == ["cross_validation"]
    assert validated(study, "purged_k_fold", folds=5).trial == folded.trial
    assert known.call(list_trials, known.database).height == 3
    median = sorted(combined.paths["sharpe"])[1]
    assert known.call(compare_trials, known.database, known.lake, (combined.trial,)).rows[0].sharpe == pytest.approx(median)


def test_other_parameters_are_another_trial_and_wrong_ones_are_refused(study: Study) -> None:
    plan = Plan(folds=3, embargo=5)
    first = cross_validate(study, "ridge", plan)
    other = cross_validate(study, "ridge", plan, params={"penalty": 5.0})
    assert first.trial != other.trial
    assert first.paths["ic"][0] != other.paths["ic"][0]
    with pytest.raises(UnknownNameError):
        cross_validate(study, "nonsense", plan)
    with pytest.raises(InputError, match="splitter"):
        cross_validate(study, "ridge", Plan(splitter="nonsense"))  # type: ignore[arg-type]  # a wrong one is what is tested
    with pytest.raises(InputError, match="use up"):
        cross_validate(study, "ridge", Plan(folds=60, embargo=5))
    assert study.workspace.call(list_trials, study.workspace.database).height == 2
