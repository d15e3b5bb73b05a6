"""The sequence engine's own promises: the step is the model, and a state forgets what lies behind its band."""

import threading

import numpy as np
import polars as pl
import pytest
import torch

from tests.models.panels import FEATURES, day, panel
from tidemill.domain.errors import InputError, IntegrityError
from tidemill.models.artifact import Artifact
from tidemill.models.base import Standardizer
from tidemill.models.sequence.network import forward, initial_weights
from tidemill.models.sequence.shape import CONTEXT, Shape, layout
from tidemill.models.transformer import ENGINE, TransformerStream

QUICK = {"minimum_steps": 2, "maximum_steps": 3}
SHAPE = Shape(inputs=5)


@pytest.fixture(scope="module")
def trained() -> Artifact:
    return ENGINE.fit(panel(5, 90, skill=0.4), features=FEATURES, params=QUICK, seed=7)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    made = initial_weights(SHAPE, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    return {name: weight + 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in made.items()}


def values(frame: pl.DataFrame, bars: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """Features [bars, symbols, features] of a full panel."""
    return frame.select(FEATURES).to_numpy().reshape(-1, bars, len(FEATURES)).transpose(1, 0, 2)


def test_it_has_two_layers_of_width_64_over_a_context_of_64() -> None:
    sizes = layout(Shape(inputs=3))
    assert CONTEXT == 64
    assert sizes["embed.weight"] == (3, 64)
    assert {name.split(".")[0] for name in sizes} >= {"layer0", "layer1"}
    assert ENGINE.info.history == Shape(inputs=3).history == 126


def test_streaming_bar_by_bar_gives_the_bits_of_scoring_the_range(trained: Artifact) -> None:
    frame = panel(70, 150, seed=11)
    stream = TransformerStream(trained, frame["symbol"].unique().sort().to_list())
    stepped = np.stack([stream.step(bar) for bar in values(frame, 150)])
    scored = ENGINE.predict(trained, frame)["prediction"].to_numpy().reshape(70, 150).T
    assert np.array_equal(stepped, scored)


def test_a_stream_with_missing_bars_gives_the_bits_of_scoring_each_symbols_own_bars(trained: Artifact) -> None:
    frame, chance = panel(5, 180, seed=12), np.random.default_rng(4)
    there = chance.random((180, 5)) < np.array([1.0, 0.9, 0.5, 0.2, 0.0])
    stream = TransformerStream(trained, frame["symbol"].unique().sort().to_list())
    stepped = np.stack([stream.step(bar, present) for bar, present in zip(values(frame, 180), there, strict=True)])
    assert np.array_equal(np.isfinite(stepped), there)
    own = frame.filter(pl.Series(there.T.flatten()))
    scored = ENGINE.predict(trained, own)["prediction"].to_numpy()
    assert np.array_equal(stepped.T[there.T], scored)


def test_a_stream_that_started_127_bars_earlier_gives_the_bits_of_the_full_history(trained: Artifact) -> None:
    frame = panel(3, 260, seed=13)
    bars = values(frame, 260)
    long, short = (TransformerStream(trained, ["a", "b", "c"]) for _ in range(2))
    whole = np.stack([long.step(bar) for bar in bars])
    late = np.stack([short.step(bar) for bar in bars[101:]])
    assert np.array_equal(late[126:], whole[101 + 126 :])
    assert not np.array_equal(late[60], whole[161])


def test_a_bar_behind_the_band_has_no_influence_and_the_first_inside_it_has(trained: Artifact) -> None:
    frame = panel(1, 200, seed=14)
    plain = ENGINE.predict(trained, frame)["prediction"]
    for altered, expected in ((199 - 127, False), (199 - 126, True), (199, True)):
        changed = frame.with_columns(
            pl.when(pl.int_range(pl.len()) == altered).then(-pl.col("x0") + 3).otherwise(pl.col("x0")).alias("x0")
        )
        assert (ENGINE.predict(trained, changed)["prediction"][199] != plain[199]) is expected


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_the_step_computes_what_the_training_pass_computes(trained: Artifact, chunks: int) -> None:
    shape = Shape(inputs=len(FEATURES))
    made = initial_weights(shape, torch.Generator().manual_seed(1))
    own = {name: (one + 0.1 * torch.randn(one.shape, generator=torch.Generator().manual_seed(2))) for name, one in made.items()}
    artifact = Artifact(trained.manifest, {**trained.tensors, **{name: one.numpy() for name, one in own.items()}})
    frame = panel(3, chunks * CONTEXT, seed=chunks)
    scaled = torch.from_numpy(Standardizer.restore(trained.tensors).matrix(frame, FEATURES)).view(3, chunks * CONTEXT, -1)
    with torch.inference_mode():
        passed = forward(own, shape, scaled).flatten().numpy() * trained.tensors["output.scale"][0]
    stepped = ENGINE.predict(artifact, frame)["prediction"].to_numpy()
    assert np.abs(stepped - passed).max() < 2e-5 * np.abs(passed).max()


def test_the_training_pass_looks_at_no_later_position_and_at_no_neighbour(weights: dict[str, torch.Tensor]) -> None:
    x = torch.randn(2, 3 * CONTEXT, SHAPE.inputs, generator=torch.Generator().manual_seed(3), requires_grad=True)
    forward(weights, SHAPE, x)[0, 150].backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    touched = x.grad.abs().sum(-1) > 0
    assert touched[0].nonzero().flatten().tolist() == list(range(150 - 126, 151))
    assert not touched[1].any()


def test_every_labelled_position_of_a_sequence_teaches(weights: dict[str, torch.Tensor]) -> None:
    rows = panel(2, 120, skill=0.5)
    one_label_less = rows.with_columns(
        pl.when((pl.col("symbol") == "S001") & (pl.col("open_time") == day(60)))
        .then(None)
        .otherwise(pl.col("label"))
        .alias("label")
    )
    hashes = {ENGINE.fit(frame, features=FEATURES, params=QUICK, seed=7).hash for frame in (rows, one_label_less)}
    assert len(hashes) == 2


def test_fitting_and_scoring_leave_torchs_settings_as_they_were(trained: Artifact) -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        ENGINE.fit(panel(3, 60), features=FEATURES, params=QUICK, seed=7)
        ENGINE.predict(trained, panel(3, 20))
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)


def test_the_callers_thread_count_and_seed_do_not_change_the_bits(trained: Artifact) -> None:
    frame, rows = panel(3, 40), panel(5, 90, skill=0.4)
    expected = ENGINE.predict(trained, frame)
    before = torch.get_num_threads()
    try:
        for threads, seed in ((1, 3), (2, 4)):
            torch.set_num_threads(threads)
            torch.manual_seed(seed)
            assert ENGINE.predict(trained, frame).equals(expected)
            assert ENGINE.fit(rows, features=FEATURES, params=QUICK, seed=7).hash == trained.hash
    finally:
        torch.set_num_threads(before)


def test_two_threads_that_score_at_once_get_the_same_bits_as_one(trained: Artifact) -> None:
    frame = panel(3, 60)
    expected, got = ENGINE.predict(trained, frame), []
    threads = [threading.Thread(target=lambda: got.append(ENGINE.predict(trained, frame))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 3
    assert all(one.equals(expected) for one in got)


def test_weights_of_another_shape_are_refused(trained: Artifact) -> None:
    tensors = dict(trained.tensors) | {"head.weight": np.zeros(65, dtype=np.float32)}
    with pytest.raises(IntegrityError, match="shapes"):
        ENGINE.predict(Artifact(trained.manifest, tensors), panel(2, 10))


def test_a_stream_refuses_symbols_and_features_of_another_shape(trained: Artifact) -> None:
    for symbols in ([], ["a", "a"]):
        with pytest.raises(InputError, match="only once"):
            TransformerStream(trained, symbols)
    with pytest.raises(InputError, match="shape"):
        TransformerStream(trained, ["a"]).step(np.zeros((2, len(FEATURES))))


def test_a_saved_and_loaded_model_scores_with_the_same_bits(
    trained: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tidemill.models.artifact import load

    folder = tmp_path_factory.mktemp("models") / "m"
    trained.save(folder)
    frame = panel(3, 30)
    assert ENGINE.predict(load(folder), frame).equals(ENGINE.predict(trained, frame))
