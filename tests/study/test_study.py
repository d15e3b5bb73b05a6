"""Under which keys parts of a study lie: what decides a part decides its key, so that no two experiments share one of both."""

from pathlib import Path

import msgspec
import pytest

from tests.study.panels import small_experiment
from tidemill.domain.experiment import Experiment, FeatureSpec, NewsSpec, SplitSpec
from tidemill.provenance import fingerprint
from tidemill.queries.predictions import stored_predictions
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import predict_ensemble, train_ensemble
from tidemill.steps.predictions.engines import predict
from tidemill.steps.upstream import TRAINING_SET
from tidemill.study.scoring import predictions_of
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

FEATURES = FeatureSpec(sets=(), names=("ROC5", "STD10", "roc_10", "natr_14"))
TO_PREDICTIONS = (
    *TRAINING_SET.values(),
    *(lambda study: train(study, "momentum"), lambda study: train(study, "ridge")),
    *(predict, train_ensemble, predict_ensemble),
)
REPLACE = msgspec.structs.replace


def run(workspace: Workspace, experiment: Experiment) -> tuple[Study, list[bool]]:
    """The study, and which of its steps had work to do."""
    study = study_of(workspace, experiment)
    return study, [step(study).worked for step in TO_PREDICTIONS]  # type: ignore[attr-defined]  # each gives its report


def with_news(experiment: Experiment, path: Path, words: tuple[str, str]) -> Experiment:
    lines = [f"{symbol},2021-{month:02d}-0{day},{symbol} {words[(month + day) % 2]} {month} {day}"
             for symbol in ("AAA", "BBB", "CCC") for month in range(1, 12) for day in range(1, 9)]  # fmt: skip
    path.write_text("symbol,published_at,headline\n" + "\n".join(lines) + "\n")
    return REPLACE(experiment, news=NewsSpec(source=f"file:{path}"))


def with_index(experiment: Experiment, path: Path, step: int) -> Experiment:
    lines = [f"2021-{month:02d}-{day:02d},{(month * 31 + day) * step % 101}" for month in range(1, 12) for day in range(1, 29)]
    path.write_text("date,value\n" + "\n".join(lines) + "\n")
    return REPLACE(experiment, features=REPLACE(experiment.features, fear_greed=f"file:{path}"))


@pytest.mark.parametrize("beside", ["news", "index"])
def test_two_experiments_that_read_other_things_beside_bars_have_tables_of_their_own(
    workspace: Workspace, folder: Path, tmp_path: Path, beside: str
) -> None:
    plain = small_experiment(folder, features=FEATURES)
    if beside == "news":
        one = with_news(plain, tmp_path / "one.csv", ("gains on strong growth", "warns of losses"))
        other = with_news(plain, tmp_path / "other.csv", ("faces a fraud probe", "wins an award"))
    else:
        one, other = with_index(plain, tmp_path / "one.csv", 7), with_index(plain, tmp_path / "other.csv", 13)
    first, _ = run(workspace, one)
    features, predicted = first.feature_frame, predictions_of(first, "ensemble")
    second, _ = run(workspace, other)
    assert not second.feature_frame.equals(features)
    again, worked = run(workspace, one)
    assert not any(worked)
    assert again.feature_frame.equals(features)
    assert predictions_of(again, "ensemble").equals(predicted)
    stored = workspace.call(stored_predictions, again, "ensemble").sort("symbol", "open_time")
    assert (
        stored["prediction"].to_list() == predicted.sort("symbol", "open_time").drop_nulls("prediction")["prediction"].to_list()
    )
    assert not {first.features_key, first.ensemble_key} & {second.features_key, second.ensemble_key}


def keys(workspace: Workspace, experiment: Experiment) -> tuple[str, str]:
    study = study_of(workspace, experiment)
    return study.features_key, study.engine_key(experiment.engines[0])


def test_keys_of_experiments_that_read_bars_alone_are_what_they_were(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder, features=FEATURES)
    study, spec = study_of(workspace, experiment), experiment.engines[0]
    decided = (spec, study.features.fingerprint, experiment.label, experiment.splits, experiment.seed)
    features, engine = keys(workspace, experiment)
    assert features == f"{study.dataset.key}.{study.features.fingerprint[:8]}"
    assert engine == f"{study.dataset.key}.{spec.name}-{fingerprint(*decided)[:8]}"


def test_what_is_read_beside_bars_is_named_once_however_it_is_written(
    workspace: Workspace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, path = small_experiment(folder, features=FEATURES), tmp_path / "wire.csv"
    news = with_news(plain, path, ("gains", "losses"))
    expected = keys(workspace, news)
    monkeypatch.chdir(tmp_path)
    assert keys(workspace, REPLACE(news, news=NewsSpec(source="file:wire.csv", half_life=5.0))) == expected
    assert keys(workspace, REPLACE(news, news=NewsSpec(source="file:wire.csv", half_life=6.0))) != expected
    index = with_index(plain, tmp_path / "index.csv", 7)
    expected = keys(workspace, index)
    assert keys(workspace, REPLACE(index, features=REPLACE(FEATURES, fear_greed="file:index.csv"))) == expected


def test_an_engine_s_key_holds_what_decides_its_predictions_and_nothing_that_comes_after(
    workspace: Workspace, folder: Path
) -> None:
    experiment = small_experiment(folder, features=FEATURES)
    expected = keys(workspace, experiment)[1]
    after = {
        "ensemble": "equal",
        "validation": REPLACE(experiment.validation, distance=5.0),
        "strategy": REPLACE(experiment.strategy, params={"fraction": 0.3}),
        "costs": REPLACE(experiment.costs, fee_bps=9.0),
        "benchmark": "AAA",
    }
    for name, value in after.items():
        assert keys(workspace, REPLACE(experiment, **{name: value}))[1] == expected, name
    before = {
        "label": REPLACE(experiment.label, horizon=4),
        "splits": SplitSpec(train=90, test=30),
        "seed": 8,
        "features": FeatureSpec(sets=(), names=("ROC5",)),
    }
    for name, value in before.items():
        assert keys(workspace, REPLACE(experiment, **{name: value}))[1] != expected, name
