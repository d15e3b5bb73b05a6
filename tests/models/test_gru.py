"""The recurrent engine's own promises: the step is the model, and a state forgets at fixed times."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from tests.models.panels import FEATURES, START, day, panel
from tidemill.domain.errors import InputError, IntegrityError
from tidemill.models.artifact import Artifact, load
from tidemill.models.gru import ENGINE, GruStream
from tidemill.models.sequence.layers import identity
from tidemill.models.sequence.recurrent import BLOCK, SPAN, Recurrent, States

QUICK = {"minimum_steps": 2, "maximum_steps": 3}
NETWORK = Recurrent(inputs=5)
Bars = np.ndarray[tuple[int, int, int], np.dtype[np.float64]]


@pytest.fixture(scope="module")
def trained() -> Artifact:
    return ENGINE.fit(panel(5, 90, skill=0.4), features=FEATURES, params=QUICK, seed=7)


@pytest.fixture(scope="module")
def remembering(trained: Artifact) -> Artifact:
    """The update gates held half shut: a state that was trained for seconds forgets within 60 bars of itself."""
    bias = trained.tensors["input.bias"].copy()
    bias[64:128] += 4.0
    return Artifact(trained.manifest, {**trained.tensors, "input.bias": bias})


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    made = NETWORK.initial(torch.Generator().manual_seed(1))
    return {name: weight + 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in made.items()}


def values(frame: pl.DataFrame, bars: int) -> Bars:
    """Features [bars, symbols, features] of a full panel."""
    return frame.select(FEATURES).to_numpy().reshape(-1, bars, len(FEATURES)).transpose(1, 0, 2)


def window_of(time: datetime) -> int:
    """Whole windows of 64 days since 1970."""
    return (time - datetime(1970, 1, 1, tzinfo=time.tzinfo)).days // SPAN


def begin(window: int) -> int:
    """Day of the panel on which a window, counted from that of the first day, begins."""
    return next(number for number in range(9_999) if window_of(day(number)) == window_of(START) + window)


def altered(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    """The bar of one day changed for every symbol."""
    return frame.with_columns(
        pl.when(pl.col("open_time") == day(number)).then(-pl.col("x0") + 3).otherwise(pl.col("x0")).alias("x0")
    )


def at(scored: pl.DataFrame, number: int) -> float:
    return float(scored.filter(pl.col("open_time") == day(number))["prediction"][0])


def test_its_width_and_its_history_are_those_that_it_says() -> None:
    assert Recurrent(inputs=3).layout()["state.weight"] == (192, 64)
    assert ENGINE.info.history == Recurrent(inputs=3).history == 2 * SPAN - 1


def test_streaming_bar_by_bar_gives_the_bits_of_scoring_the_range(trained: Artifact) -> None:
    frame = panel(70, 200, seed=11)
    stream = GruStream(trained, frame["symbol"].unique().sort().to_list())
    stepped = np.stack([stream.step(bar, open_time=day(number)) for number, bar in enumerate(values(frame, 200))])
    scored = ENGINE.predict(trained, frame)["prediction"].to_numpy().reshape(70, 200).T
    assert np.array_equal(stepped, scored)


def test_a_stream_with_missing_bars_gives_the_bits_of_scoring_each_symbols_own_bars(trained: Artifact) -> None:
    frame, chance = panel(5, 300, seed=12), np.random.default_rng(4)
    there = chance.random((300, 5)) < np.array([1.0, 0.9, 0.5, 0.01, 0.0])
    there[60:230, 1] = False  # a halt longer than two windows
    stream = GruStream(trained, frame["symbol"].unique().sort().to_list())
    bars = zip(values(frame, 300), there, strict=True)
    stepped = np.stack([stream.step(bar, present, open_time=day(number)) for number, (bar, present) in enumerate(bars)])
    assert np.array_equal(np.isfinite(stepped), there)
    own = frame.filter(pl.Series(there.T.flatten()))
    assert np.array_equal(stepped.T[there.T], ENGINE.predict(trained, own)["prediction"].to_numpy())


def test_what_lies_before_the_window_before_this_one_has_no_influence_and_what_lies_in_it_has(remembering: Artifact) -> None:
    frame = panel(1, 330, seed=14)
    first = begin(3)
    plain = ENGINE.predict(remembering, frame)
    for changed, expected in ((begin(2) - 1, False), (begin(2), True), (first, True)):
        scored = ENGINE.predict(remembering, altered(frame, changed))
        assert (at(scored, first) != at(plain, first)) is expected
        assert (at(scored, begin(4) - 1) != at(plain, begin(4) - 1)) is expected


def test_every_answer_knows_the_last_64_bars(remembering: Artifact) -> None:
    frame = panel(1, 260, seed=15)
    plain = ENGINE.predict(remembering, frame)
    for number in (begin(2) - 1, begin(2), begin(2) + 1, begin(2) + 31):
        assert at(ENGINE.predict(remembering, altered(frame, number - SPAN)), number) != at(plain, number)


def test_the_step_computes_what_the_training_pass_computes(weights: dict[str, torch.Tensor]) -> None:
    x = torch.randn(BLOCK, 2 * SPAN, NETWORK.inputs, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        states = States(weights, NETWORK)
        windows = (torch.arange(2 * SPAN) // SPAN)[:, None].expand(-1, BLOCK)
        stepped = torch.stack([states.step(x[:, number], windows[number]) for number in range(2 * SPAN)], dim=1)
        assert (stepped - NETWORK.forward(weights, x, identity)).abs().max() < 2e-5


def test_the_training_pass_looks_at_no_later_position_and_at_no_neighbour(weights: dict[str, torch.Tensor]) -> None:
    x = torch.randn(2, 40, NETWORK.inputs, generator=torch.Generator().manual_seed(3), requires_grad=True)
    NETWORK.forward(weights, x, identity)[0, 25].backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    touched = x.grad.abs().sum(-1) > 0
    assert touched[0].nonzero().flatten().tolist() == list(range(26))
    assert not touched[1].any()


def test_every_labelled_position_of_a_sequence_teaches() -> None:
    rows = panel(2, 120, skill=0.5)
    one = (pl.col("symbol") == "S001") & (pl.col("open_time") == day(60))
    less = rows.with_columns(pl.when(one).then(None).otherwise(pl.col("label")).alias("label"))
    hashes = {ENGINE.fit(frame, features=FEATURES, params=QUICK, seed=7).hash for frame in (rows, less)}
    assert len(hashes) == 2


def test_what_only_the_past_tells_is_learnt() -> None:
    """The label is the feature of the bar before: no row shows it, the state does."""
    rows = panel(20, 200)
    told = pl.col("x0").shift(1).over("symbol").fill_null(0.0)
    rows = rows.with_columns((0.01 * told + 0.87 * pl.col("label")).alias("label"))
    params = {"passes": 20.0, "maximum_steps": 60, "learning_rate": 1e-2}
    artifact = ENGINE.fit(rows.filter(pl.col("open_time") < day(140)), features=("x0", "x1"), params=params, seed=7)
    scored = ENGINE.predict(artifact, rows, start=day(144)).join(rows, on=("symbol", "open_time"))
    assert scored.select(pl.corr("prediction", "label")).item() > 0.3


def test_the_callers_thread_count_and_seed_do_not_change_the_bits(trained: Artifact) -> None:
    frame, rows = panel(3, 40), panel(5, 90, skill=0.4)
    expected, before = ENGINE.predict(trained, frame), torch.get_num_threads()
    try:
        for threads, seed in ((1, 3), (2, 4)):
            torch.set_num_threads(threads)
            torch.manual_seed(seed)
            assert ENGINE.predict(trained, frame).equals(expected)
            assert ENGINE.fit(rows, features=FEATURES, params=QUICK, seed=7).hash == trained.hash
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_bar_that_was_stamped_late_does_not_change_the_length_of_a_bar(trained: Artifact) -> None:
    rows = panel(5, 90, skill=0.4)
    stray = pl.when(pl.int_range(pl.len()) == 17).then(pl.col("open_time") + timedelta(seconds=1)).otherwise("open_time")
    made = ENGINE.fit(rows.with_columns(stray.alias("open_time")), features=FEATURES, params=QUICK, seed=7)
    assert made.tensors["bar.seconds"] == trained.tensors["bar.seconds"] == 86_400.0


@pytest.mark.parametrize("name", ["head.weight", "state.bias"])
def test_weights_of_another_shape_are_refused(trained: Artifact, name: str) -> None:
    tensors = dict(trained.tensors) | {name: np.zeros(65, dtype=np.float32)}
    with pytest.raises(IntegrityError, match="shapes"):
        ENGINE.predict(Artifact(trained.manifest, tensors), panel(2, 10))


def test_a_model_whose_bars_have_no_length_is_refused(trained: Artifact) -> None:
    tensors = dict(trained.tensors) | {"bar.seconds": np.zeros(1)}
    with pytest.raises(IntegrityError, match="length of a bar"):
        ENGINE.predict(Artifact(trained.manifest, tensors), panel(2, 10))


def test_a_stream_refuses_symbols_and_features_of_another_shape(trained: Artifact) -> None:
    for symbols in ([], ["a", "a"]):
        with pytest.raises(InputError, match="only once"):
            GruStream(trained, symbols)
    with pytest.raises(InputError, match="shape"):
        GruStream(trained, ["a"]).step(np.zeros((2, len(FEATURES))), open_time=START)
    with pytest.raises(InputError, match="pass the open_time"):
        GruStream(trained, ["a"]).step(np.zeros((1, len(FEATURES))))


def test_a_saved_and_loaded_model_scores_with_the_same_bits(
    trained: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models") / "m"
    trained.save(folder)
    assert {file.name for file in folder.iterdir()} == {"manifest.json", "weights.safetensors"}
    frame = panel(3, 30)
    assert ENGINE.predict(load(folder), frame).equals(ENGINE.predict(trained, frame))
