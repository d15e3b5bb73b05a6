"""Engines of one's own functions, through the interface of every engine."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.models.panels import FEATURES, before, day, information_coefficient, panel
from tidemill.domain.errors import InputError, IntegrityError, UnknownNameError
from tidemill.models.artifact import load
from tidemill.models.custom import CustomEngine
from tidemill.models.inference import stream
from tidemill.models.registry import Engines, code_version, engine, require_free

Fit = Callable[..., object]


def fit(training: pl.DataFrame, *, features: tuple[str, ...], penalty: float = 1.0) -> dict[str, Any]:
    x, y = training.select(features).to_numpy(), training["label"].to_numpy()
    return {"weights": np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y), "rows": len(y)}


def predict(model: Mapping[str, Any], frame: pl.DataFrame, *, features: tuple[str, ...]) -> Any:
    return (frame.select(features).to_numpy() * model["weights"]).sum(axis=1)


def made(fit: Fit = fit, predict: Fit = predict, source: str = "a", **options: Any) -> CustomEngine:
    return CustomEngine("own", fit, predict, source=source, **options)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return panel(7, 220, skill=0.4)


def test_a_signal_that_was_planted_is_found_out_of_sample(frame: pl.DataFrame) -> None:
    artifact = made().fit(before(frame, 150), features=FEATURES, params={}, seed=7)
    scored = made().predict(artifact, frame, start=day(150))
    assert scored["open_time"].min() == day(150)
    assert information_coefficient(scored, frame) == pytest.approx(0.4, abs=0.1)


def test_a_model_is_stored_and_read_like_any_other(frame: pl.DataFrame, tmp_path: Path) -> None:
    artifact = made().fit(before(frame, 150), features=FEATURES, params={"penalty": 2.0}, seed=7)
    artifact.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert (again.hash, again.inputs.params) == (artifact.hash, {"penalty": 2.0})
    assert again.tensors["rows"].tolist() == [7.0 * 150]
    assert made().predict(again, frame).equals(made().predict(artifact, frame))


def test_the_hash_covers_the_code_of_the_functions(frame: pl.DataFrame) -> None:
    rows = before(frame, 150)
    one, two = (made(source=source).fit(rows, features=FEATURES, params={}, seed=7) for source in ("a", "b"))
    assert one.hash != two.hash
    assert code_version(made(source="a")) != code_version(made(source="b"))


def test_the_seed_is_given_to_who_asks_and_only_rows_with_a_label_are(frame: pl.DataFrame) -> None:
    def asking(training: pl.DataFrame, *, seed: int) -> dict[str, Any]:
        assert training.columns == ["symbol", "open_time", *FEATURES, "label"]
        assert training["label"].null_count() == 0
        return {"seed": seed}

    holed = frame.with_columns(pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col("label")).alias("label"))
    artifact = made(asking, lambda model, frame: np.zeros(frame.height)).fit(holed, features=FEATURES, params={}, seed=11)
    assert artifact.tensors["seed"].tolist() == [11.0]


def test_a_row_without_half_of_its_features_has_no_prediction(frame: pl.DataFrame) -> None:
    artifact = made().fit(before(frame, 150), features=FEATURES, params={}, seed=7)
    blank = frame.with_columns(pl.lit(float("nan")).alias(name) for name in FEATURES[:4])
    assert made().predict(artifact, blank)["prediction"].null_count() == frame.height


def test_history_reaches_back_before_the_start(frame: pl.DataFrame) -> None:
    seen: list[int] = []

    def counting(model: Mapping[str, Any], rows: pl.DataFrame) -> Any:
        seen.append(rows.height)
        return np.ones(rows.height)

    for history in (0, 5):
        own = made(fit, counting, history=history)
        artifact = own.fit(before(frame, 150), features=FEATURES, params={}, seed=7)
        assert own.predict(artifact, frame, start=day(150)).height == 7 * 70
    assert seen == [7 * 70, 7 * 220]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "must return a dict"),
        ({}, "must return a dict"),
        ({1: 2.0}, "must return a dict"),
        ({"weights": "many"}, "returned something other than numbers or arrays of numbers"),
        ({"weights": [1.0, float("nan")]}, "non-finite weights"),
    ],
)
def test_what_is_no_model_is_refused(frame: pl.DataFrame, answer: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        made(lambda training: answer).fit(frame, features=FEATURES, params={}, seed=7)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(lambda frame: [1.0], "returned 1 predictions for 1,540 rows"), (lambda frame: ["x"] * frame.height, "not a number")],
)
def test_what_is_no_prediction_is_refused(frame: pl.DataFrame, answer: Callable[[pl.DataFrame], Any], reason: str) -> None:
    own = made(predict=lambda model, frame: answer(frame))
    artifact = own.fit(frame, features=FEATURES, params={}, seed=7)
    with pytest.raises(InputError, match=reason):
        own.predict(artifact, frame)


def test_whatever_the_functions_raise_is_one_sentence(frame: pl.DataFrame) -> None:
    def failing(training: pl.DataFrame) -> None:
        raise RuntimeError("first line\nsecond line")

    with pytest.raises(InputError, match=r"^fit of the engine own failed: RuntimeError: first line second line\.$"):
        made(failing).fit(frame, features=FEATURES, params={}, seed=7)


def test_a_feature_that_it_needs_must_be_there(frame: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the feature absent"):
        made(needs=("x0", "absent")).fit(frame, features=FEATURES, params={}, seed=7)


def test_a_parameter_without_a_default_or_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(InputError, match="window of own has no default"):
        made(lambda training, window: {})
    with pytest.raises(InputError, match="must be a number, a string, true or false"):
        made(lambda training, grid=(1, 2): {})


def test_it_stands_beside_those_that_ship_where_it_is_given_and_nowhere_else() -> None:
    own = made()
    known = Engines({"own": own})
    assert known.find("own") is own
    assert known.find("ridge") is engine("ridge")
    names = [one.info.name for one in known.all()]
    assert ("own" in names, names[-1]) == (True, "ensemble")
    with pytest.raises(UnknownNameError, match="There is no engine named 'own'"):
        engine("own")


def test_a_stream_gives_it_the_bar_as_the_batch_does(frame: pl.DataFrame) -> None:
    """Its time, and the symbols that have one in their order, whichever order those of the stream have."""
    own = made(predict=lambda model, rows: model["weights"][0] * rows["x1"].to_numpy() * rows["open_time"].dt.weekday())
    known, artifact = Engines({"own": own}), own.fit(before(frame, 150), features=FEATURES, params={}, seed=7)
    some = frame.filter(pl.col("symbol") != "S003", pl.col("open_time") >= day(200))
    expected = own.predict(artifact, some)
    symbols = ["S005", "S003", *sorted({*some["symbol"]} - {"S005"})]
    steps = stream(artifact, symbols, known)
    for (time,), rows in some.partition_by("open_time", as_dict=True).items():
        told = rows.select("symbol", *FEATURES)
        aligned = pl.DataFrame({"symbol": symbols}).join(told, on="symbol", how="left", maintain_order="left")
        present = np.array([symbol != "S003" for symbol in symbols])
        assert isinstance(time, datetime)
        said = steps.step(aligned.select(FEATURES).fill_null(float("nan")).to_numpy(), present, open_time=time)
        wanted = dict(expected.filter(pl.col("open_time") == time).select("symbol", "prediction").iter_rows())
        assert [wanted.get(symbol) for symbol in symbols] == [None if np.isnan(one) else one for one in said]
    assert np.isnan(steps.step(np.zeros((len(symbols), len(FEATURES))), np.zeros(len(symbols), bool), open_time=day(219))).all()


def test_it_cannot_take_the_name_of_one_that_ships() -> None:
    require_free("own")
    with pytest.raises(InputError, match="There is already an engine named 'ridge'"):
        require_free("ridge")


def test_a_model_of_other_shapes_is_the_functions_to_refuse(frame: pl.DataFrame) -> None:
    artifact = made().fit(before(frame, 150), features=FEATURES, params={}, seed=7)
    with pytest.raises(InputError, match="the engine own cannot score with it"):
        made().predict(engine("ridge").fit(before(frame, 150), features=FEATURES, params={}, seed=7), frame)
    with pytest.raises((InputError, IntegrityError), match="x3"):
        made().predict(artifact, frame.drop("x3"))


class Fits:
    """Counts the rows of each fit; `answer` is what it gives."""

    def __init__(self, answer: Callable[[pl.DataFrame], Any]) -> None:
        self.rows: list[int] = []
        self._answer = answer

    def __call__(self, training: pl.DataFrame, penalty: float = 1.0) -> Any:
        self.rows.append(training.height)
        return self._answer(training)


@pytest.fixture(scope="module")
def long() -> pl.DataFrame:
    return panel(7, 400)


@pytest.mark.parametrize(
    ("answer", "score", "reason"),
    [
        (lambda rows: object(), np.ones, r"must return a dict .* give engine\('own', fit, predict, save=…, load=…\)"),
        (lambda rows: {"w": "x"}, np.ones, "returned something other than numbers or arrays of numbers"),
        (lambda rows: {"w": 1.0}, lambda rows: np.ones(3), "returned 3 predictions for 1,000 rows"),
        (lambda rows: {"w": 1.0}, lambda rows: 1 / 0, "predict of the engine own failed: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_stored_or_does_not_predict_is_refused_by_a_short_fit_before_a_long_one(
    long: pl.DataFrame, answer: Callable[[pl.DataFrame], Any], score: Callable[[int], Any], reason: str
) -> None:
    fits = Fits(answer)
    own = made(fits, lambda model, rows: score(rows.height))
    for _ in range(2):
        with pytest.raises(InputError, match=reason):
            own.fit(long, features=FEATURES, params={}, seed=7)
    assert fits.rows == [1_000, 1_000]


def test_a_fit_is_tried_once_for_each_set_of_parameters_and_a_short_one_never(long: pl.DataFrame) -> None:
    fits = Fits(lambda rows: {"w": 1.0})
    own = made(fits, lambda model, rows: np.ones(rows.height))
    for penalty in (1.0, 1.0, 2.0):
        own.fit(long, features=FEATURES, params={"penalty": penalty}, seed=7)
    own.fit(before(long, 200), features=FEATURES, params={"penalty": 3.0}, seed=7)
    assert fits.rows == [1_000, 2_800, 2_800, 1_000, 2_800, 1_400]


def test_a_fit_that_fails_on_a_few_rows_alone_is_not_refused(long: pl.DataFrame) -> None:
    fits = Fits(lambda rows: {"w": 1.0 / (rows.height // 2_000)})
    assert made(fits).fit(long, features=FEATURES, params={}, seed=7).tensors["w"].tolist() == [1.0]
    assert fits.rows == [1_000, 2_800]
