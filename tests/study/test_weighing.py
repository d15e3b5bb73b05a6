"""Weights of the engines by skill: the stated formula, only what was known before the fold, never negative."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.study.panels import START as START_OF_BARS
from tests.study.panels import daily_bars, small_experiment
from tidemill.domain.errors import UnknownNameError
from tidemill.models.artifact import load
from tidemill.steps.checks.samples import prove_weighing
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import predict_ensemble, train_ensemble
from tidemill.steps.predictions.engines import predict
from tidemill.study.model_index import artifact_folder, models_home, read_index
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.weighing import CREDIBILITY, coefficients, skill_weights, weights_of
from tidemill.study.workspace import Workspace

START = datetime(2022, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def known(values: list[float]) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64)


def rows_of(cells: list[tuple[str, int, float, float, int]]) -> pl.DataFrame:
    """Scored rows: symbol, day, prediction, label, and days until the label was known."""
    rows = [(symbol, day(at), said, came, day(at + held)) for symbol, at, said, came, held in cells]
    schema = {"symbol": pl.String(), "open_time": TIME, "prediction": pl.Float64(), "label": pl.Float64(), "label_end_at": TIME}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("open_time", "symbol")


def test_weights_follow_the_stated_formula() -> None:
    skill = skill_weights({"a": known([0.06] * 128), "b": known([0.02] * 128), "c": known([-0.1] * 128)}, horizon=2)
    credible = 64.0 / (64.0 + CREDIBILITY)
    assert skill["a"].weight == pytest.approx((1 - credible) / 3 + credible * 0.75)
    assert skill["b"].weight == pytest.approx((1 - credible) / 3 + credible * 0.25)
    assert skill["c"].weight == pytest.approx((1 - credible) / 3)
    assert skill["c"].rank_ic == pytest.approx(-0.1)


def test_before_anything_was_seen_or_where_no_engine_has_skill_the_weights_are_equal() -> None:
    nothing = skill_weights({"a": known([]), "b": known([])}, horizon=1)
    unskilled = skill_weights({"a": known([-0.1] * 90), "b": known([-0.2] * 90)}, horizon=1)
    assert [one.weight for one in nothing.values()] == [0.5, 0.5]
    assert [one.weight for one in unskilled.values()] == [0.5, 0.5]
    assert nothing["a"].rank_ic is None


def test_an_engine_that_predicted_nothing_is_left_out_and_takes_nothing_from_the_others() -> None:
    others = {"a": known([0.06] * 128), "b": known([0.02] * 128)}
    made = skill_weights({**others, "silent": known([])}, horizon=2)
    assert made["silent"] == (0.0, None, 64.0)
    assert {name: made[name] for name in others} == skill_weights(others, horizon=2)


@given(st.lists(st.lists(st.floats(-1, 1), min_size=0, max_size=30), min_size=1, max_size=5), st.integers(1, 10))
def test_weights_are_never_negative_and_sum_to_one(values: list[list[float]], horizon: int) -> None:
    made = skill_weights({f"e{at}": known(one) for at, one in enumerate(values)}, horizon)
    assert all(one.weight >= 0.0 for one in made.values())
    assert sum(one.weight for one in made.values()) == pytest.approx(1.0)


def test_an_outcome_counts_from_when_its_label_was_known() -> None:
    # C is halted: its labels come nine days late, and until then the others are compared without it.
    cells = [(name, at, float(place), 9.0 if name == "C" else float(-place), 9 if name == "C" else 1)
             for at in range(3) for place, name in enumerate("ABCD")]  # fmt: skip
    rows = rows_of(cells)
    assert coefficients(rows, day(0)).is_empty()
    assert coefficients(rows, day(1)).to_list() == pytest.approx([-1.0])
    assert coefficients(rows, day(3)).to_list() == pytest.approx([-1.0] * 3)
    late = coefficients(rows, day(9)).to_list()
    assert late[0] > -0.5
    assert late[1:] == pytest.approx([-1.0] * 2)
    assert coefficients(rows.clear(), day(9)).is_empty()


CELLS = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.integers(0, 70), st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 9)),
    max_size=80,
    unique_by=lambda cell: cell[:2],
)


@given(CELLS, st.integers(0, 80))
def test_what_comes_after_the_cut_has_no_influence(cells: list[tuple[str, int, float, float, int]], cut: int) -> None:
    rows = rows_of(cells)
    assert coefficients(rows, day(cut)).equals(coefficients(rows.filter(pl.col("label_end_at") <= day(cut)), day(cut)))


def test_months_are_compared_while_two_symbols_trade_however_many_are_listed_later() -> None:
    two = [(name, at, float(at * place), float(-at * place), 1) for at in range(59) for place, name in enumerate("AB", start=1)]
    five = [(name, 60 + at, float(place), float(place), 1) for at in range(200) for place, name in enumerate("ABCDE")]
    assert coefficients(rows_of(two + five), day(59)).to_list() == pytest.approx([-1.0, -1.0])  # January and February
    assert len(coefficients(rows_of(two + five), day(300))) == 200  # and days once they are the rule


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    made = study_of(workspace, small_experiment(folder))
    for step in (sync_bars, compute_features, build_training_set):
        step(made)
    for name in ("momentum", "ridge"):
        train(made, name)
    return made


def test_weights_are_proven_where_most_symbols_are_listed_late(workspace: Workspace, tmp_path: Path) -> None:
    """Two symbols, whose months are compared, until four more make their days comparable."""
    bars = daily_bars()
    listed = START_OF_BARS.date() + timedelta(days=150)
    bars.filter(pl.col("symbol").is_in(["AAA", "BBB"]) | (pl.col("date") >= listed)).write_parquet(tmp_path / "bars.parquet")
    made = study_of(workspace, small_experiment(tmp_path))
    for step in (sync_bars, compute_features, build_training_set):
        step(made)
    for name in ("momentum", "ridge"):
        train(made, name)
    predict(made)
    proof = prove_weighing(made)
    assert proof.proven
    assert proof.refuted == ()


def test_weights_need_the_engines_predictions(study: Study) -> None:
    with pytest.raises(UnknownNameError, match="predictions/engines"):
        train_ensemble(study)


def test_every_fold_has_the_weights_that_were_known_before_it(study: Study) -> None:
    predict(study)
    report = train_ensemble(study)
    index = read_index(models_home(study.workspace), study.ensemble_key)
    assert index is not None
    assert report.columns[-1] == "weights"
    told = [row[-1] for row in report.table]
    assert {tuple(own) for own in told} == {("momentum", "ridge")}
    for fold, entry, own in zip(study.folds, index.folds, told, strict=True):
        artifact = load(artifact_folder(models_home(study.workspace), entry.model_id))
        weights = [one.weight for one in weights_of(study, fold).values()]
        assert artifact.tensors["weights"] == pytest.approx(weights, abs=1e-11)
        assert list(own.values()) == pytest.approx(weights, abs=1e-4)
        assert artifact.inputs.params["weights"] == pytest.approx(weights, abs=1e-11)
        assert datetime.fromisoformat(artifact.inputs.split["weighed_until"]) == fold.train_end < fold.test_start
    equal = {"momentum": 0.5, "ridge": 0.5}
    assert told[0] == equal
    assert any(own != equal for own in told)
    assert report.facts.newest_weights == pytest.approx(told[-1], abs=1e-4)
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
    assert all(row[-1] == {"momentum": 0.5, "ridge": 0.5} for row in report.table)
    predict(equal)
    assert predict_ensemble(equal).worked
    assert equal.ensemble_key != study.ensemble_key
