"""Streams of several blocks of symbols: windows with and without gaps, absent symbols, and states cut at random bars."""

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import bars_of, random_bars
from tests.features.test_parity import bits, streamed
from tidemill.features.api import FeatureSet, compute
from tidemill.features.blocks import Blocks
from tidemill.features.declaration import Feature
from tidemill.features.opcodes import BLOCK
from tidemill.features.operators import (
    abs,
    argmax,
    close,
    corr,
    high,
    low,
    max,
    maximum,
    mean,
    min,
    quantile,
    rank,
    ref,
    rsquare,
    since_min,
    std,
    sum,
    volume,
)
from tidemill.features.state import FeatureState
from tidemill.features.stream import FeatureStream

_change = close - ref(close, 1)
# One of each scan, with windows that fill within the test, single bars among them.
SHORT = FeatureSet(
    tuple(
        Feature(f"{name}_{window}", expression)
        for window in (1, 4, 7)
        for name, expression in (
            ("mean", mean(close, window)), ("std", std(volume, window)), ("rsquare", rsquare(close, window)),
            ("corr", corr(close, volume, window)), ("top", max(high, window)), ("bottom", min(low, window)),
            ("place", argmax(high, window)), ("since", since_min(low, window)), ("rank", rank(close, window)),
            ("upper", quantile(close, window, 0.8)), ("median", quantile(volume, window, 0.5)),
            ("rises", sum(maximum(_change, 0.0), window)), ("moves", sum(abs(_change), window)),
            ("rose", mean(close > ref(close, 1), window)),
        )
    )
)  # fmt: skip


def wide_panel(seed: int, symbols: int, slots: int, missing: float, absent: float, late: float) -> pl.DataFrame:
    """Symbols of which a share is listed late; some slots are absent and some cells missing."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(symbols):
        listed = int(rng.integers(1, slots)) if rng.random() < late else 0
        own = np.flatnonzero((np.arange(slots) >= listed) & (rng.random(slots) >= absent))
        frames.append(bars_of(f"S{index:03d}", own, random_bars(rng, len(own), missing, 0.1)))
    return pl.concat(frames)


@pytest.mark.parametrize(
    ("missing", "absent", "late"),
    [(0.0, 0.0, 0.0), (0.0005, 0.0, 0.0), (0.0, 0.0005, 0.01), (0.0005, 0.0005, 0.01), (0.1, 0.6, 0.2)],
)
def test_blocks_of_symbols_step_as_the_batch_computes(missing: float, absent: float, late: float) -> None:
    bars = wide_panel(31, 2 * BLOCK + 9, 40, missing, absent, late)
    symbols = bars["symbol"].unique().sort().to_list()
    batch, after = compute(bars, SHORT)
    stream, left = streamed(bars, SHORT, symbols, {3, 17, 18})
    wrong = [name for name in SHORT.names if not np.array_equal(bits(batch[name].to_numpy()), bits(stream[name].to_numpy()))]
    assert wrong == []
    assert np.array_equal(bits(after.slots), bits(left.slots))
    assert np.array_equal(after.history, left.history, equal_nan=True)


@pytest.mark.parametrize("count", [1, 3, 8, BLOCK, BLOCK + 1, 5 * BLOCK - 3])
def test_a_state_goes_through_blocks_unchanged(count: int) -> None:
    program, rng = SHORT.program, np.random.default_rng(count)
    symbols = tuple(f"S{index}" for index in range(count))
    history = np.where(rng.random((count, program.history)) < 0.1, np.nan, rng.normal(size=(count, program.history)))
    state = FeatureState("", symbols, rng.normal(size=(count, program.slots)), history, np.zeros(count, dtype=np.int64))
    blocks = Blocks(program, state)
    assert np.array_equal(blocks.history(), history, equal_nan=True)
    assert np.array_equal(blocks.carried(), state.slots)
    assert blocks.width <= BLOCK
    assert (len(blocks.position) - 1) * blocks.width < count <= len(blocks.position) * blocks.width


def test_a_sorted_window_depends_on_its_last_values_alone() -> None:
    features = FeatureSet(tuple(Feature(f"q{w}", quantile(close, w, q)) for w, q in ((5, 0.3), (9, 0.8))))
    rng = np.random.default_rng(4)
    prices = np.where(rng.random(400) < 0.05, np.nan, np.round(rng.normal(size=400), 1))
    prices[::50] = -0.0
    long = FeatureStream(features, ["X"])
    for number, price in enumerate(prices):
        row = long.step(price, price, price, price, 1.0).copy()
        if number % 23 == 20:
            fresh = FeatureStream(features, ["X"])
            for recent in prices[number - 8 : number + 1]:
                again = fresh.step(recent, recent, recent, recent, 1.0)
            assert np.array_equal(bits(row), bits(again))
            held = prices[number - 8 : number + 1]
            assert row[0, 1] == pytest.approx(np.quantile(held[~np.isnan(held)], 0.8), abs=1e-15)


def test_the_average_price_of_a_step_without_one_is_the_batchs() -> None:
    from tidemill.features.operators import vwap

    features = FeatureSet((Feature("v", vwap / close),))
    bars = wide_panel(5, 3, 30, 0.05, 0.0, 0.0)
    batch, _ = compute(bars, features)
    stream, _ = streamed(bars, features, bars["symbol"].unique().sort().to_list(), set())
    assert np.array_equal(bits(batch["v"].to_numpy()), bits(stream["v"].to_numpy()))
