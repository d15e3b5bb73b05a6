"""What holds for every engine that learns from feature rows."""

import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.models.panels import FEATURES, MOMENTUM, before, day, information_coefficient, panel
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.models.artifact import Artifact
from tidemill.models.base import Engine, Lineage
from tidemill.models.registry import engine, engines

LEARNERS = ("momentum", "mean_reversion", "ridge", "lightgbm", "transformer", "gru")
# Small and fast where a test is not about skill.
STEPS = {"minimum_steps": 2, "maximum_steps": 3}
QUICK: dict[str, dict[str, Any]] = {"lightgbm": {"trees": 10}, "transformer": STEPS, "gru": STEPS}


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return panel(7, 220, skill=0.3)


@pytest.fixture(scope="module")
def trained(frame: pl.DataFrame) -> dict[str, Artifact]:
    rows = before(frame, 150)
    return {name: engine(name).fit(rows, features=FEATURES, params=QUICK.get(name, {}), seed=7) for name in LEARNERS}


@pytest.fixture(params=LEARNERS)
def learner(request: pytest.FixtureRequest) -> Engine:
    return engine(request.param)


def fitted(learner: Engine, rows: pl.DataFrame, features: tuple[str, ...] = FEATURES, seed: int = 7) -> Artifact:
    return learner.fit(rows, features=features, params=QUICK.get(learner.info.name, {}), seed=seed)


def test_the_registry_has_the_engines_by_name_and_the_ensemble_last() -> None:
    names = [one.info.name for one in engines()]
    assert names == [*sorted(names[:-1]), "ensemble"]
    assert set(LEARNERS) < set(names)


def test_an_unknown_engine_is_refused_with_the_choices() -> None:
    with pytest.raises(UnknownNameError, match="ridge"):
        engine("oracle")


def test_listing_the_engines_imports_neither_torch_nor_lightgbm() -> None:
    code = (
        "import sys; from tidemill.models.registry import engines; engines(); print({'torch', 'lightgbm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_row_from_the_start_on_gets_a_prediction(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    scored = learner.predict(trained[learner.info.name], frame, start=day(150))
    assert scored.columns == ["symbol", "open_time", "prediction"]
    assert scored.select("symbol", "open_time").equals(
        frame.filter(pl.col("open_time") >= day(150)).select("symbol", "open_time")
    )
    assert scored["prediction"].is_finite().all()
    assert scored["prediction"].n_unique() > 100


def test_the_same_seed_data_and_code_give_the_same_hash(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    assert fitted(learner, before(frame, 150)).hash == trained[learner.info.name].hash


def test_the_hash_changes_with_seed_data_features_and_lineage(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    rows = before(frame, 150)
    others = [
        fitted(learner, rows, seed=8),
        fitted(learner, before(frame, 149)),
        fitted(learner, rows.with_columns(pl.col("label") * 2)),
        learner.fit(
            rows,
            features=FEATURES,
            params=QUICK.get(learner.info.name, {}),
            seed=7,
            lineage=Lineage(data_versions={"bars": "2"}),
        ),
    ]
    assert len({artifact.hash for artifact in others} | {trained[learner.info.name].hash}) == 5


def test_splitting_and_permuting_the_batch_changes_no_bit(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    artifact = trained[learner.info.name]
    whole = learner.predict(artifact, frame)
    alone = [learner.predict(artifact, frame.filter(pl.col("symbol") == name)) for name in whole["symbol"].unique().sort()]
    assert pl.concat(alone).equals(whole)
    renamed = frame.with_columns(("Z" + (999 - pl.col("symbol").str.slice(1).cast(pl.Int32)).cast(pl.String)).alias("symbol"))
    reordered = learner.predict(artifact, renamed.sort("symbol", "open_time"))
    back = reordered.with_columns(
        ("S" + (999 - pl.col("symbol").str.slice(1).cast(pl.Int32)).cast(pl.String).str.zfill(3)).alias("symbol")
    )
    assert back.sort("symbol", "open_time").equals(whole)


def test_the_batch_of_a_large_universe_changes_no_bit_either(learner: Engine, trained: dict[str, Artifact]) -> None:
    artifact = trained[learner.info.name]
    crowd = panel(150, 40, seed=5)
    whole = learner.predict(artifact, crowd)
    for name in ("S000", "S063", "S064", "S149"):
        own = learner.predict(artifact, crowd.filter(pl.col("symbol") == name))
        assert own.equals(whole.filter(pl.col("symbol") == name))


def test_the_history_that_an_engine_asks_for_gives_the_bits_of_the_whole_history(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    artifact = trained[learner.info.name]
    start = 219 - learner.info.history - 5
    short = learner.predict(artifact, frame.filter(pl.col("open_time") >= day(start)), start=day(start + learner.info.history))
    assert short.equals(learner.predict(artifact, frame, start=day(start + learner.info.history)))


def test_later_rows_do_not_change_a_prediction(learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]) -> None:
    artifact = trained[learner.info.name]
    altered = frame.with_columns(
        pl.when(pl.col("open_time") >= day(180)).then(pl.col(name) * -3 + 1).otherwise(pl.col(name)).alias(name)
        for name in FEATURES
    )
    assert before(learner.predict(artifact, altered), 180).equals(learner.predict(artifact, before(frame, 180)))


def test_labels_and_other_columns_of_the_frame_to_score_are_not_looked_at(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    bare = frame.select("symbol", "open_time", *FEATURES)
    assert learner.predict(trained[learner.info.name], bare).equals(learner.predict(trained[learner.info.name], frame))


@pytest.mark.parametrize("name", ["ridge", "lightgbm", "transformer", "gru"])
def test_a_planted_signal_is_found_out_of_sample_and_noise_is_not(name: str) -> None:
    found = {}
    for skill in (0.15, 0.0):
        rows = panel(40, 400, skill=skill)
        artifact = engine(name).fit(before(rows, 280), features=FEATURES, params={}, seed=7)
        found[skill] = information_coefficient(engine(name).predict(artifact, rows, start=day(283)), rows)
    # 117 days of 40 symbols: the standard error of a mean coefficient is 1 / sqrt(117 · 40) = 0.015.
    assert 0.15 - 0.06 < found[0.15] < 0.15 + 0.045
    assert abs(found[0.0]) < 0.05


def test_one_symbol_alone_can_be_learnt(learner: Engine) -> None:
    rows = panel(1, 300)
    scored = learner.predict(fitted(learner, before(rows, 200)), rows, start=day(200))
    assert scored["prediction"].is_finite().all()


def test_rows_with_too_few_known_features_have_no_prediction(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    empty = frame.with_columns(
        pl.when(pl.col("open_time") >= day(210)).then(float("nan")).otherwise(pl.col(name)).alias(name) for name in FEATURES
    )
    scored = learner.predict(trained[learner.info.name], empty)
    assert scored.filter(pl.col("open_time") >= day(210))["prediction"].is_null().all()
    assert before(scored, 210)["prediction"].is_finite().all()


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1e300])
def test_single_bad_values_never_lead_to_a_prediction_that_is_not_finite(
    learner: Engine, value: float | None, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    spoiled = frame.with_columns(pl.lit(value, pl.Float64).alias("x0"), pl.lit(value, pl.Float64).alias("ROC60"))
    scored = learner.predict(trained[learner.info.name], spoiled)
    assert scored["prediction"].drop_nulls().is_finite().all()


def test_an_empty_frame_gives_an_empty_answer(learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]) -> None:
    scored = learner.predict(trained[learner.info.name], frame.clear())
    assert (scored.height, scored.columns) == (0, ["symbol", "open_time", "prediction"])
    assert learner.predict(trained[learner.info.name], frame, start=day(9_999)).is_empty()


def spoilt(rows: pl.DataFrame, value: float | None, columns: tuple[str, ...]) -> pl.DataFrame:
    return rows.with_columns(pl.lit(value, pl.Float64).alias(name) for name in columns)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (panel(3, 1), "3 rows with a label"),
        (panel(3, 0), "0 rows with a label"),
        (spoilt(panel(3, 60), float("nan"), FEATURES), "0 rows with a label"),
        (spoilt(panel(3, 60), None, FEATURES), "0 rows with a label"),
        (spoilt(panel(3, 60), None, ("label",)), "0 rows with a label"),
        (spoilt(panel(3, 60), float("inf"), ("label",)), "0 rows with a label"),
        (panel(3, 60).drop("ROC5"), "lacks the column"),
        (panel(3, 60).drop("label"), "lacks the column"),
        (panel(3, 60).with_columns(pl.lit("high").alias("ROC5")), "do not hold numbers"),
        (panel(3, 60).reverse(), "not sorted"),
    ],
)
def test_rows_that_can_teach_nothing_are_refused_with_one_sentence(learner: Engine, rows: pl.DataFrame, text: str) -> None:
    with pytest.raises(InputError, match=text):
        fitted(learner, rows)


@pytest.mark.parametrize("name", ["ridge", "lightgbm", "transformer", "gru"])
def test_features_that_never_vary_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="empty or constant"):
        fitted(engine(name), spoilt(panel(3, 60), 1.5, FEATURES))


def test_a_constant_label_gives_predictions_and_no_crash(learner: Engine) -> None:
    rows = spoilt(panel(3, 60), 0.01, ("label",))
    scored = learner.predict(fitted(learner, rows), rows)
    assert scored["prediction"].is_finite().all()
    assert np.ptp(scored["prediction"].to_numpy()) < 1e-3


def test_one_constant_and_one_empty_feature_among_good_ones_do_no_harm(learner: Engine, frame: pl.DataFrame) -> None:
    rows = spoilt(spoilt(before(frame, 150), 2.0, ("x2",)), None, ("x3",))
    assert learner.predict(fitted(learner, rows), rows)["prediction"].is_finite().all()


def test_an_unknown_parameter_is_refused_with_the_known_ones(learner: Engine, frame: pl.DataFrame) -> None:
    with pytest.raises(InputError, match=learner.info.name):
        learner.fit(frame, features=FEATURES, params={"magic": 1}, seed=7)


def test_no_feature_or_a_repeated_one_is_refused(learner: Engine, frame: pl.DataFrame) -> None:
    for features in ((), ("x0", "x0"), MOMENTUM + MOMENTUM):
        with pytest.raises(InputError):
            fitted(learner, frame, features)


def test_a_model_of_another_engine_is_refused(learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]) -> None:
    other = next(name for name in LEARNERS if name != learner.info.name)
    with pytest.raises(InputError, match=f"This is a {other} model"):
        learner.predict(trained[other], frame)


def test_a_frame_without_a_feature_of_the_model_is_refused(
    learner: Engine, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    with pytest.raises(InputError, match="ROC5"):
        learner.predict(trained[learner.info.name], frame.drop("ROC5"))


def test_the_manifest_names_what_decided_the_weights(learner: Engine, frame: pl.DataFrame) -> None:
    lineage = Lineage(feature_fingerprint="f1", data_versions={"bars": "v1"}, horizon=5, split={"train_start": "2020-01-01"})
    inputs = learner.fit(
        before(frame, 150), features=FEATURES, params=QUICK.get(learner.info.name, {}), seed=7, lineage=lineage
    ).inputs
    assert (inputs.engine, inputs.seed, inputs.horizon, inputs.rows) == (learner.info.name, 7, 5, 7 * 150)
    assert set(inputs.features) <= set(FEATURES)
    assert (inputs.feature_fingerprint, inputs.data_versions, inputs.split) == (
        "f1",
        {"bars": "v1"},
        {"train_start": "2020-01-01"},
    )
    assert (inputs.start[:10], inputs.end[:10]) == ("2020-01-01", "2020-05-29")
    assert len(inputs.code_version) == 16
