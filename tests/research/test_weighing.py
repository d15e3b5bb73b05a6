"""Weights of the engines by skill: the stated formula, only what was known before the fold, never negative."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.research.panels import small_experiment
from tidemill.domain.errors import UnknownNameError
from tidemill.metrics.predictions import scored
from tidemill.models.artifact import load
from tidemill.research.ensembling import predict_ensemble, train_ensemble, weights_of
from tidemill.research.market_data import sync_bars
from tidemill.research.model_store import artifact_folder, models_home, read_index
from tidemill.research.predicting import predict
from tidemill.research.results import study_of
from tidemill.research.study import Study
from tidemill.research.technical import build_training_set, compute_features
from tidemill.research.training import train
from tidemill.research.weighing import CREDIBILITY, coefficients, skill_weights
from tidemill.research.workspace import Workspace

START = datetime(2022, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def known(values: list[float], first: int = 0) -> pl.DataFrame:
    """Coefficients of one engine on consecutive days, each ended five days later."""
    times = [day(first + number) for number in range(len(values))]
    frame = pl.DataFrame({"time": times, "rank_ic": values, "ended": [time + timedelta(days=5) for time in times]})
    return frame.with_columns(pl.col("time", "ended").cast(pl.Datetime("us", "UTC")))


def test_weights_follow_the_stated_formula() -> None:
    skill = skill_weights({"a": known([0.06] * 128), "b": known([0.02] * 128), "c": known([-0.1] * 128)}, day(500), horizon=2)
    credible = 64.0 / (64.0 + CREDIBILITY)
    assert skill["a"].weight == pytest.approx((1 - credible) / 3 + credible * 0.75)
    assert skill["b"].weight == pytest.approx((1 - credible) / 3 + credible * 0.25)
    assert skill["c"].weight == pytest.approx((1 - credible) / 3)
    assert skill["c"].rank_ic == pytest.approx(-0.1)


def test_before_anything_was_seen_or_where_no_engine_has_skill_the_weights_are_equal() -> None:
    nothing = skill_weights({"a": known([0.1]), "b": known([0.2])}, day(0), horizon=1)
    unskilled = skill_weights({"a": known([-0.1] * 90), "b": known([-0.2] * 90)}, day(500), horizon=1)
    assert [one.weight for one in nothing.values()] == [0.5, 0.5]
    assert [one.weight for one in unskilled.values()] == [0.5, 0.5]
    assert nothing["a"].rank_ic is None


def test_an_engine_that_predicted_nothing_is_left_out_and_takes_nothing_from_the_others() -> None:
    others = {"a": known([0.06] * 128), "b": known([0.02] * 128)}
    made = skill_weights({**others, "silent": known([])}, day(500), horizon=2)
    assert made["silent"] == (0.0, None, 64.0)
    assert {name: made[name] for name in others} == skill_weights(others, day(500), horizon=2)


def test_what_ended_after_the_cut_has_no_influence() -> None:
    early = {"a": known([0.05] * 60), "b": known([0.01] * 60)}
    later = {name: pl.concat([frame, known([9.0 if name == "b" else -9.0] * 40, first=60)]) for name, frame in early.items()}
    assert skill_weights(later, day(64), horizon=1) == skill_weights(early, day(64), horizon=1)
    assert skill_weights(later, day(65), horizon=1) != skill_weights(early, day(65), horizon=1)


@given(st.lists(st.lists(st.floats(-1, 1), min_size=0, max_size=30), min_size=1, max_size=5), st.integers(1, 10))
def test_weights_are_never_negative_and_sum_to_one(values: list[list[float]], horizon: int) -> None:
    made = skill_weights({f"e{at}": known(one) for at, one in enumerate(values)}, day(1_000), horizon)
    assert all(one.weight >= 0.0 for one in made.values())
    assert sum(one.weight for one in made.values()) == pytest.approx(1.0)


def test_a_coefficient_is_known_when_the_last_of_its_labels_is() -> None:
    rows = [(name, day(at), float(place + at)) for at in range(3) for place, name in enumerate("ABCD")]
    schema = pl.Schema({"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "prediction": pl.Float64})
    predictions = pl.DataFrame(rows, schema=schema, orient="row")
    late = pl.when(pl.col("symbol") == "C").then(pl.col("open_time") + timedelta(days=9)).otherwise(pl.col("open_time"))
    labels = predictions.with_columns((-pl.col("prediction")).alias("label"), late.alias("label_end_at"))
    made = coefficients(scored(predictions, labels))
    assert made["rank_ic"].to_list() == pytest.approx([-1.0] * 3)
    assert made["ended"].to_list() == [day(at + 9) for at in range(3)]
    assert coefficients(scored(predictions.clear(), labels)).is_empty()


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    made = study_of(workspace, small_experiment(folder))
    for step in (sync_bars, compute_features, build_training_set):
        step(made)
    for name in ("momentum", "ridge"):
        train(made, name)
    return made


def test_weights_need_the_engines_predictions(study: Study) -> None:
    with pytest.raises(UnknownNameError, match="predictions/engines"):
        train_ensemble(study)


def test_every_fold_has_the_weights_that_were_known_before_it(study: Study) -> None:
    predict(study)
    report = train_ensemble(study)
    index = read_index(models_home(study.workspace), study.ensemble_key)
    assert index is not None
    assert report.columns[3:] == ("momentum", "ridge")
    for fold, entry, row in zip(study.folds, index.folds, report.table, strict=True):
        artifact = load(artifact_folder(models_home(study.workspace), entry.model_id))
        weights = [one.weight for one in weights_of(study, fold).values()]
        assert artifact.tensors["weights"] == pytest.approx(weights, abs=1e-11)
        assert row[3:] == pytest.approx(weights, abs=1e-4)
        assert artifact.inputs.params["weights"] == pytest.approx(weights, abs=1e-11)
        assert datetime.fromisoformat(artifact.inputs.split["weighed_until"]) == fold.train_end < fold.test_start
    assert report.table[0][3:] == (0.5, 0.5)
    assert any(row[3:] != (0.5, 0.5) for row in report.table)
    assert not train_ensemble(study).worked


def test_the_weights_are_those_of_a_plain_count_of_ranks(study: Study) -> None:
    predict(study)
    fold = study.folds[-1]
    labels = study.lake.scan("labels", study.labels_key).collect()
    means = []
    for spec in study.experiment.engines:
        scored = study.lake.scan("predictions", study.engine_key(spec)).collect().join(labels, on=("symbol", "open_time"))
        by_time = []
        for part in scored.drop_nulls(["prediction", "label"]).partition_by("open_time"):
            if all(ended <= fold.train_end for ended in part["label_end_at"]):
                said, came = (np.argsort(np.argsort(part[name].to_numpy())) for name in ("prediction", "label"))
                by_time.append(float(np.corrcoef(said, came)[0, 1]))
        means.append((float(np.mean(by_time)), len(by_time)))
    periods = min(count for _, count in means) / study.experiment.label.horizon
    credible = periods / (periods + CREDIBILITY)
    positive = [max(mean, 0.0) for mean, _ in means]
    shares = [one / sum(positive) if sum(positive) > 0 else 0.5 for one in positive]
    expected = [(1 - credible) * 0.5 + credible * share for share in shares]
    assert [one.weight for one in weights_of(study, fold).values()] == pytest.approx(expected)


def test_equal_weights_can_be_asked_for_and_need_no_predictions(study: Study) -> None:
    equal = Study(study.workspace, msgspec.structs.replace(study.experiment, ensemble="equal"), study.dataset.venue)
    report = train_ensemble(equal)
    assert {row[3:] for row in report.table} == {(0.5, 0.5)}
    predict(equal)
    assert predict_ensemble(equal).worked
    assert equal.ensemble_key != study.ensemble_key
