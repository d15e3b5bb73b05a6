"""One call for every engine and device, and the same bits row by row, bar by bar and in any batch."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from tests.models.panels import FEATURES, before, day, panel
from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact
from tidemill.models.base import Floats, Standardizer, symbol_runs
from tidemill.models.inference import predict_batch, stream
from tidemill.models.registry import engine
from tidemill.models.sentiment import COLUMNS
from tidemill.models.sequence.shape import Shape

NAMES = ("momentum", "mean_reversion", "sentiment", "ridge", "lightgbm", "transformer", "gru")
STEPS = {"minimum_steps": 2, "maximum_steps": 3}
QUICK = {"lightgbm": {"trees": 12}, "transformer": STEPS, "gru": STEPS}


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return panel(7, 180, skill=0.3).with_columns(pl.col("x1").alias("sentiment_mean"), pl.col("x2").alias("sentiment_surprise"))


@pytest.fixture(scope="module")
def trained(frame: pl.DataFrame) -> dict[str, Artifact]:
    rows = before(frame, 120)
    return {name: engine(name).fit(rows, features=columns_of(name), params=QUICK.get(name, {}), seed=7) for name in NAMES}


def columns_of(name: str) -> tuple[str, ...]:
    return (*FEATURES, *COLUMNS) if name == "sentiment" else FEATURES


def by_time(frame: pl.DataFrame, features: tuple[str, ...]) -> list[Floats]:
    """Features [symbols, features] of each bar time of a full panel."""
    return [part.select(features).to_numpy() for part in frame.sort("open_time", "symbol").partition_by("open_time")]


@pytest.mark.parametrize("name", NAMES)
def test_it_scores_as_the_engine_does_and_in_any_batch_with_the_same_bits(
    name: str, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    whole = predict_batch(trained[name], frame)
    assert whole.equals(engine(name).predict(trained[name], frame))
    alone = [predict_batch(trained[name], part) for part in frame.partition_by("symbol")]
    assert pl.concat(alone).equals(whole)
    assert predict_batch(trained[name], frame, start=day(170)).equals(whole.filter(pl.col("open_time") >= day(170)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symbols", [7, 1])
def test_a_stream_gives_the_bits_of_the_batch(
    name: str, symbols: int, frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    own = frame.filter(pl.col("symbol") < f"S{symbols:03d}")
    opened = stream(trained[name], own["symbol"].unique().sort().to_list())
    stepped = np.stack(
        [opened.step(bar, open_time=day(at)) for at, bar in enumerate(by_time(own, trained[name].inputs.features))]
    )
    scored = predict_batch(trained[name], own)["prediction"].to_numpy().reshape(symbols, -1).T
    assert np.array_equal(stepped, scored)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_of_symbols_in_any_order_marks_absent_and_unknown_ones(name: str, trained: dict[str, Artifact]) -> None:
    features = trained[name].inputs.features
    values = np.exp(np.random.default_rng(3).standard_normal((4, len(features))))
    values[1] = np.nan
    values[3, 0] = np.inf
    present = np.array([True, True, False, True])
    made = stream(trained[name], ["b", "d", "a", "c"]).step(values, present, open_time=day(9))
    assert np.isnan(made[1:3]).all()
    assert np.isfinite(made[0])
    order = [2, 0, 3, 1]
    again = stream(trained[name], ["a", "b", "c", "d"]).step(values[order], present[order], open_time=day(9))
    assert np.array_equal(again, made[order], equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_refuses_repeated_symbols_and_features_of_another_shape(name: str, trained: dict[str, Artifact]) -> None:
    for symbols in ([], ["a", "a"]):
        with pytest.raises(InputError, match="only once"):
            stream(trained[name], symbols)
    with pytest.raises(InputError, match="shape"):
        stream(trained[name], ["a"]).step(np.zeros((2, len(FEATURES))))


@pytest.mark.parametrize("name", ["momentum", "mean_reversion", "sentiment", "ridge", "lightgbm"])
def test_rows_of_any_numbers_step_to_the_bits_of_the_batch(name: str, trained: dict[str, Artifact]) -> None:
    random, features = np.random.default_rng(5), trained[name].inputs.features
    symbols = [f"S{number:03d}" for number in range(400)]
    values = random.normal(1.0, 1.0, (len(symbols), len(features)))
    odd = random.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 1e-300], values.shape)
    values = np.where(random.random(values.shape) < 0.2, odd, values)
    values[::7] = np.where(random.random(values[::7].shape) < 0.5, np.nan, values[::7])  # about half of them unknown
    times = pl.Series([day(0)] * len(symbols), dtype=pl.Datetime("us", "UTC"))
    columns = {feature: values[:, at] for at, feature in enumerate(features)}
    scored = predict_batch(trained[name], pl.DataFrame({"symbol": symbols, "open_time": times, **columns}))["prediction"]
    found = stream(trained[name], symbols).step(values)
    assert np.array_equal(found, scored.fill_null(float("nan")).to_numpy(), equal_nan=True)
    assert 0 < np.isfinite(found).sum() < len(symbols)


def test_values_too_large_for_single_precision_are_scored_as_the_batch_scores_them(trained: dict[str, Artifact]) -> None:
    values = np.full((1, len(FEATURES)), 1e300)
    times = pl.Series([day(0)], dtype=pl.Datetime("us", "UTC"))
    columns = {name: [1e300] for name in FEATURES}
    row = pl.DataFrame({"symbol": ["a"], "open_time": times, **columns})
    expected = predict_batch(trained["lightgbm"], row)["prediction"][0]
    assert stream(trained["lightgbm"], ["a"]).step(values)[0] == expected


def test_an_unknown_device_and_a_gpu_that_is_not_there_are_refused(frame: pl.DataFrame, trained: dict[str, Artifact]) -> None:
    import torch

    for name in ("ridge", "transformer"):
        with pytest.raises(InputError, match="cpu, cuda or auto"):
            predict_batch(trained[name], frame, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU"):
            predict_batch(trained["transformer"], frame, device="cuda")


def test_the_automatic_choice_is_the_gpu_where_there_is_one_and_else_the_cpu(
    frame: pl.DataFrame, trained: dict[str, Artifact]
) -> None:
    import torch

    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert predict_batch(trained["ridge"], frame, device="auto").equals(predict_batch(trained["ridge"], frame, device="cpu"))
    chosen = predict_batch(trained["transformer"], frame, device="auto")
    assert chosen.equals(predict_batch(trained["transformer"], frame, device=best))


def test_the_parallel_pass_of_every_device_at_hand_agrees_with_the_step_over_windows_of_a_long_history(
    trained: dict[str, Artifact],
) -> None:
    import torch

    from tidemill.models.sequence.device import score

    rows = panel(3, 1_100, seed=9)
    artifact = trained["transformer"]
    matrix = Standardizer.restore(artifact.tensors).matrix(rows, FEATURES)
    stepped = predict_batch(artifact, rows)["prediction"].to_numpy()
    rounding = {"cpu": 1e-4, "cuda": 5e-2}  # of float32 and of bfloat16, of the largest prediction
    for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
        passed = score(artifact.tensors, Shape(len(FEATURES)), matrix, symbol_runs(rows), device)
        assert np.abs(passed * artifact.tensors["output.scale"][0] - stepped).max() < rounding[device] * np.abs(stepped).max()


def test_scoring_on_the_cpu_does_not_import_torch(
    trained: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models") / "transformer"
    trained["transformer"].save(folder)
    code = (
        "import sys; from pathlib import Path; from tests.models.panels import panel;"
        "from tidemill.models.artifact import load;"
        "from tidemill.models.inference import predict_batch;"
        f"assert predict_batch(load(Path({str(folder)!r})), panel(2, 5)).height == 10; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
