"""Streaming equals batch to the bit, wherever the state is cut, and nothing but a symbol's own bars counts."""

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.features.conftest import COLUMNS, random_bars, random_panel
from tidemill.features.api import FeatureSet, compute, feature_set
from tidemill.features.declaration import Feature
from tidemill.features.operators import (
    close,
    corr,
    ema,
    high,
    low,
    max,
    mean,
    mean_deviation,
    quantile,
    ref,
    std,
    sum,
    volume,
    wilder,
)
from tidemill.features.state import FeatureState
from tidemill.features.stream import FeatureStream

EVERYTHING = feature_set("classic", "alpha158")
# Windows over recursive and windowed inputs, whose own history must be carried.
NESTED = FeatureSet(
    (
        Feature("a", std(ema(close, 5), 7)),
        Feature("b", corr(wilder(high - low, 4), ref(mean(volume, 3), 2), 9)),
        Feature("c", quantile(close / max(high, 6), 8, 0.37)),
        Feature("d", mean_deviation(sum(volume, 4), 5) + ref(ema(volume, 3), 6)),
    )
)
SLOW = settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
panels = st.builds(
    random_panel,
    seed=st.integers(0, 2**32),
    symbols=st.integers(1, 6),
    slots=st.integers(1, 160),
    missing=st.sampled_from([0.0, 0.02, 0.3]),
    absent=st.sampled_from([0.0, 0.1, 0.7]),
    idle=st.sampled_from([0.0, 0.3]),
)


def bits(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(values).view(np.uint64)


def streamed(
    bars: pl.DataFrame, features: FeatureSet, symbols: list[str], cuts: set[int], start: FeatureState | None = None
) -> tuple[pl.DataFrame, FeatureState]:
    """Feature rows in the order of `bars`, taken slot by slot; at each cut the state goes through bytes into a fresh stream."""
    stream = FeatureStream(features, symbols, start)
    values = bars.select(COLUMNS).to_numpy()
    rows = np.full((len(bars), len(features.names)), np.nan)
    place = bars.select("symbol", "open_time").with_row_index()
    for number, ((time,), slot) in enumerate(place.sort("open_time").group_by("open_time", maintain_order=True)):
        if number in cuts:
            stream = FeatureStream(features, symbols, FeatureState.from_bytes(stream.state().to_bytes()))
        lanes = np.array([symbols.index(symbol) for symbol in slot["symbol"]])
        row, present = np.full((5, len(symbols)), -777.0), np.zeros(len(symbols), dtype=bool)
        row[:, lanes], present[lanes] = values[slot["index"].to_numpy()].T, True
        result = stream.step(*row, present=present, open_time=time)
        assert np.isnan(result[~present]).all()
        rows[slot["index"].to_numpy()] = result[lanes]
    return pl.DataFrame(rows, schema=list(features.names)), stream.state()


@SLOW
@given(panels, st.sets(st.integers(0, 160), max_size=4))
def test_streaming_equals_batch_to_the_bit_wherever_the_state_is_saved_and_restored(bars: pl.DataFrame, cuts: set[int]) -> None:
    symbols = bars["symbol"].unique().sort().to_list()
    if not symbols:
        return
    for features in (EVERYTHING, NESTED):
        batch, after = compute(bars, features)
        stream, left = streamed(bars, features, symbols, cuts)
        assert np.array_equal(bits(batch.select(features.names).to_numpy()), bits(stream.to_numpy()))
        assert np.array_equal(bits(after.slots), bits(left.slots))
        assert np.array_equal(np.isnan(after.history), np.isnan(left.history))
        assert np.array_equal(np.nan_to_num(after.history), np.nan_to_num(left.history))
        assert np.array_equal(after.times, left.times)


@SLOW
@given(panels, st.integers(0, 160), st.booleans())
def test_a_batch_in_two_parts_or_a_batch_and_then_a_stream_equal_one_batch(bars: pl.DataFrame, cut: int, live: bool) -> None:
    times = bars["open_time"].unique().sort()
    if len(times) < 2:
        return
    border = times[cut % len(times)]
    early, late = bars.filter(pl.col("open_time") < border), bars.filter(pl.col("open_time") >= border)
    whole, _ = compute(bars, EVERYTHING)
    first, state = compute(early, EVERYTHING)
    state = FeatureState.from_bytes(state.to_bytes())
    if live:
        second = late.select("symbol", "open_time").hstack(
            streamed(late, EVERYTHING, late["symbol"].unique().to_list(), {3}, state)[0]
        )
    else:
        second, _ = compute(late, EVERYTHING, state)
    parts = pl.concat([first, second]).sort("symbol", "open_time")
    assert np.array_equal(
        bits(whole.drop("symbol", "open_time").to_numpy()), bits(parts.drop("symbol", "open_time").to_numpy())
    )


@SLOW
@given(panels, st.randoms(use_true_random=False))
def test_other_symbols_and_their_order_change_no_bit(bars: pl.DataFrame, random: object) -> None:
    symbols = bars["symbol"].unique().sort().to_list()
    if not symbols:
        return
    whole, _ = compute(bars, EVERYTHING)
    random.shuffle(symbols)  # type: ignore[attr-defined]
    mixed, _ = compute(pl.concat([bars.filter(pl.col("symbol") == symbol) for symbol in symbols]), EVERYTHING)
    assert mixed["symbol"].unique(maintain_order=True).to_list() == symbols
    for symbol in symbols:
        alone, _ = compute(bars.filter(pl.col("symbol") == symbol), EVERYTHING)
        for other in (whole, mixed):
            same = other.filter(pl.col("symbol") == symbol)
            assert np.array_equal(
                bits(alone.select(EVERYTHING.names).to_numpy()), bits(same.select(EVERYTHING.names).to_numpy())
            )


def test_a_finite_feature_depends_on_its_look_back_and_on_nothing_before_it() -> None:
    bars = random_panel(5, symbols=1, slots=400, missing=0.01, absent=0.0)
    whole, _ = compute(bars, EVERYTHING)
    for start in (1, 97, 250, 301):
        part, _ = compute(bars[start:], EVERYTHING)
        for feature in EVERYTHING.features:
            if feature.name in EVERYTHING.recursive:
                continue
            skip = feature.expression.lookback - 1
            old, new = whole[feature.name].to_numpy()[start + skip :], part[feature.name].to_numpy()[skip:]
            assert np.array_equal(bits(old), bits(new)), feature.name


def test_what_follows_a_bar_changes_nothing_at_that_bar() -> None:
    bars = random_panel(6, symbols=3, slots=300)
    whole, _ = compute(bars, EVERYTHING)
    for border in bars["open_time"].unique().sort()[::53]:
        cut, _ = compute(bars.filter(pl.col("open_time") < border), EVERYTHING)
        kept = whole.filter(pl.col("open_time") < border)
        assert np.array_equal(
            bits(cut.drop("symbol", "open_time").to_numpy()), bits(kept.drop("symbol", "open_time").to_numpy())
        )


def test_a_feature_has_the_same_bits_in_every_set() -> None:
    bars = random_panel(7, symbols=2, slots=200)
    together, _ = compute(bars, EVERYTHING)
    for name in EVERYTHING.names[::7]:
        alone, _ = compute(bars, feature_set(name))
        assert np.array_equal(bits(alone[name].to_numpy()), bits(together[name].to_numpy())), name


def test_many_symbols_in_several_blocks_step_as_each_alone() -> None:
    rng = np.random.default_rng(8)
    count, length = 600, 30
    features = feature_set("sma_20", "rsi_14", "QTLU5", "IMAX10", "CORR5", "sar")
    rows = np.stack([np.stack(list(random_bars(rng, count).values())) for _ in range(length)])
    present = rng.random((length, count)) < rng.choice([0.01, 0.5, 0.99, 1.0], size=(length, 1))
    wide = FeatureStream(features, [f"S{index}" for index in range(count)])
    wanted = [wide.step(*row, present=flags).copy() for row, flags in zip(rows, present, strict=True)]
    for index in range(0, count, 61):
        narrow = FeatureStream(features, ["X"])
        for row, flags, want in zip(rows, present, wanted, strict=True):
            got = narrow.step(*row[:, index : index + 1], present=flags[index : index + 1])
            assert np.array_equal(bits(got[0]), bits(want[index]))


def test_price_and_volume_extremes_never_give_infinity() -> None:
    features = EVERYTHING
    values = np.array([0.0, -0.0, 1e-308, 1e308, -1e308, np.inf, -np.inf, np.nan, 1.0])
    rng = np.random.default_rng(9)
    stream = FeatureStream(features, ["X", "Y"])
    for _ in range(200):
        assert not np.isinf(stream.step(*rng.choice(values, (5, 2)))).any()
    assert not low.recursive
