"""An engine that is declared `by_tail`: its batch is its step, whatever a library makes of longer frames."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.panels import FEATURES, before, day, panel
from tidemill.domain.errors import InputError
from tidemill.models.custom import CustomEngine
from tidemill.models.inference import can_step, predict_batch, stream, warm
from tidemill.models.registry import Engines
from tidemill.user_modules.loading import load_module
from tidemill.validation.splits import rows_with_history

TEXT = """
import numpy as np
import polars as pl
kept = []

def fit(training, *, features):
    return {{"weights": np.arange(1.0, 1.0 + len(features))}}

def predict(model, frame, *, features):
    {body}

engine("own", fit, predict, {how})
"""
# A running sum, which a library begins with the frame; a time of day; how many rows there are.
BODY = """own = frame.select(pl.col(features).fill_nan(0.0).rolling_mean(3, min_samples=1).over("symbol"))
    rows = frame.select(pl.len().over("symbol")).to_series().to_numpy()
    return (own.to_numpy() * model["weights"]).sum(axis=1) + frame["open_time"].dt.day().to_numpy() + 10.0 * rows"""
SLOTS, START = 60, 40


def made(folder: Path, how: str, body: str = BODY) -> CustomEngine:
    file = folder / f"mine_{len(list(folder.iterdir()))}.py"
    file.write_text(TEXT.format(how=how, body=body))
    return load_module(file).own.engines["own"]


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], CustomEngine]:
    engines = {tail: made(tmp_path_factory.mktemp("tail"), f"by_tail={tail}") for tail in (1, 2, 7)}
    return engines.__getitem__


class Owner:
    """What a decider in force is to a chain."""


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 7]))
def test_its_batch_is_its_step_to_the_bit(engine_of: Callable[[int], CustomEngine], seed: int, tail: int) -> None:
    chance, one = np.random.default_rng(seed), engine_of(tail)
    frame = panel(5, SLOTS, skill=0.2)
    artifact = one.fit(before(frame, START), features=FEATURES, params={}, seed=1)
    late = (pl.col("symbol") != "S001") | (pl.col("open_time") >= day(int(chance.integers(1, SLOTS - 5))))
    there = pl.Series(chance.random(frame.height) > 0.2)
    holed = frame.with_columns(
        pl.when(pl.Series(chance.random(frame.height) > 0.1)).then(pl.col(FEATURES[0])).alias(FEATURES[0])
    )
    rows = holed.filter(there & late)
    known = Engines({"own": one})
    since = rows_with_history(rows, day(START), one.info.history)
    expected = predict_batch(artifact, since, start=day(START), known=known)
    assert expected["prediction"].is_not_null().sum() > 30
    owner = Owner()
    found = stepped(artifact, since, known.begun(owner))
    assert found.sort("symbol", "open_time").equals(expected)


def stepped(artifact: object, rows: pl.DataFrame, known: Engines) -> pl.DataFrame:
    symbols = ["S004", "S000", "S002", "S001", "S003"]
    opened, said = stream(artifact, symbols, known), []  # type: ignore[arg-type]  # what `fit` gives
    for (time,), bars in rows.sort("open_time").group_by("open_time", maintain_order=True):
        assert isinstance(time, datetime)
        own = {name: np.array(values, dtype=np.float64) for name, *values in bars.select("symbol", *FEATURES).iter_rows()}
        present = np.array([name in own for name in symbols])
        values = np.stack([own.get(name, np.full(len(FEATURES), np.nan)) for name in symbols])
        if time < day(START):
            warm(opened, values, present, time)
            continue
        numbers = opened.step(values, present, open_time=time)
        assert np.isnan(numbers[~present]).all()
        said += [(name, time, number) for name, number in zip(symbols, numbers.tolist(), strict=True) if name in own]
    schema = {"symbol": pl.String(), "open_time": rows.schema["open_time"], "prediction": pl.Float64()}
    return pl.DataFrame(said, schema=schema, orient="row").with_columns(pl.col("prediction").fill_nan(None))


def test_a_history_over_whole_frames_is_not_stepped(tmp_path: Path) -> None:
    by_tail, whole, rows = (made(tmp_path, how) for how in ("by_tail=4", "history=3", "about='rows'"))
    assert [can_step(one) for one in (by_tail, whole, rows)] == [True, False, True]
    assert by_tail.info.history == whole.info.history == 3
    artifact = whole.fit(before(panel(5, SLOTS), START), features=FEATURES, params={}, seed=1)
    with pytest.raises(InputError, match="The engine own remembers bars and has no stream"):
        stream(artifact, ["S000"], Engines({"own": whole}))


def test_one_that_keeps_something_from_call_to_call_is_refused(tmp_path: Path) -> None:
    one, frame = made(tmp_path, "by_tail=2", "kept.append(1); return np.full(frame.height, float(len(kept)))"), panel(5, SLOTS)
    artifact = one.fit(before(frame, START), features=FEATURES, params={}, seed=1)
    with pytest.raises(InputError, match=r"predict of the engine own of mine_0\.py keeps something from call to call"):
        one.predict(artifact, frame, start=day(START))


@pytest.mark.parametrize("body", ["return np.ones(2)", "return 'nothing'", "return frame"])
def test_an_answer_that_is_no_number_a_row_is_refused(tmp_path: Path, body: str) -> None:
    one, frame = made(tmp_path, "by_tail=2", body), panel(5, SLOTS)
    artifact = one.fit(before(frame, START), features=FEATURES, params={}, seed=1)
    with pytest.raises(InputError, match="predict of the engine own"):
        one.predict(artifact, frame, start=day(START))


def test_history_and_tail_are_not_given_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a history and a tail\. Give one of history and by_tail"):
        made(tmp_path, "history=2, by_tail=3")
