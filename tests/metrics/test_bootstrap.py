"""Bootstrap intervals: the resampling itself, `arch.bootstrap` beside it, and how often an interval holds the truth."""

import math

import numpy as np
import pytest

from tidemill.domain.errors import InputError
from tidemill.metrics.bootstrap import block_length, blocks, mean_interval, sharpe_interval


def autoregressive(length: int, seed: int, persistence: float = 0.6) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(size=length)
    for at in range(1, length):
        values[at] += persistence * values[at - 1]
    return values


def resampled_indices(length: int, block: float, resamples: int, seed: int) -> np.ndarray:
    """[resamples, length] positions of each resample: what the sums of a bootstrap stand for, one by one."""
    starts, lengths = blocks(length, block, resamples, seed)
    rows = [
        np.concatenate([(start + np.arange(size)) % length for start, size in zip(*row, strict=True)])
        for row in zip(starts, lengths, strict=True)
    ]
    return np.array(rows, dtype=np.int64)


def test_sums_over_blocks_are_those_of_the_resampled_series() -> None:
    returns = np.random.default_rng(2).normal(0.001, 0.01, 300)
    found = sharpe_interval(returns, 252.0, resamples=400, seed=9)
    rows = returns[resampled_indices(300, found.block, 400, 9)]
    ratios = rows.mean(axis=1) / rows.std(axis=1, ddof=1) * math.sqrt(252.0)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(ratios, (2.5, 97.5))), rel=1e-9)
    mean = mean_interval(returns, overlap=4, resamples=400, seed=9)
    rows = returns[resampled_indices(300, mean.block, 400, 9)]
    assert (mean.low, mean.high) == pytest.approx(tuple(np.percentile(rows.mean(axis=1), (2.5, 97.5))), rel=1e-9)


def test_blocks_follow_the_series_around_its_end_and_have_the_stated_mean() -> None:
    indices = resampled_indices(200, 8.0, 500, 3)
    assert indices.shape == (500, 200)
    follows = (indices[:, 1:] - indices[:, :-1]) % 200 == 1
    assert 1.0 / (1.0 - follows.mean()) == pytest.approx(8.0, rel=0.05)
    assert np.bincount(indices.ravel(), minlength=200).std() / 500 < 0.1


@pytest.mark.parametrize("persistence", [0.0, 0.6])
def test_intervals_are_those_of_arch(persistence: float) -> None:
    from arch.bootstrap import StationaryBootstrap

    returns = 0.0005 + 0.01 * autoregressive(1_500, 4, persistence)
    ours = sharpe_interval(returns, 252.0, resamples=4_000)
    theirs = StationaryBootstrap(int(ours.block), returns, seed=5).conf_int(
        lambda values: values.mean() / values.std(ddof=1) * math.sqrt(252.0), 4_000, method="percentile"
    )
    width = ours.high - ours.low
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.ravel()), abs=0.06 * width)


def test_nineteen_of_twenty_intervals_hold_the_true_mean_of_overlapping_values() -> None:
    held = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=1_004)
        values = np.convolve(noise, np.ones(5), mode="valid")  # neighbours share four of five
        found = mean_interval(values, overlap=5, resamples=300)
        held += found.low <= 0.0 <= found.high
    assert 0.88 <= held / 200 <= 0.98


def test_the_same_series_has_the_same_interval_and_another_seed_another() -> None:
    returns = np.random.default_rng(2).normal(0.001, 0.01, 300)
    assert sharpe_interval(returns, 252.0) == sharpe_interval(returns.copy(), 252.0)
    assert sharpe_interval(returns, 252.0, seed=1) != sharpe_interval(returns, 252.0, seed=2)


def test_missing_returns_are_left_out() -> None:
    returns = np.random.default_rng(2).normal(0.001, 0.01, 300)
    holed = np.insert(returns, [5, 50, 120], np.nan)
    assert sharpe_interval(holed, 252.0) == sharpe_interval(returns, 252.0)


@pytest.mark.parametrize("returns", [[], [0.01], [0.01] * 50, [float("nan")] * 50, [0.01, -0.01] * 4])
def test_too_little_or_no_spread_has_no_interval(returns: list[float]) -> None:
    assert math.isnan(sharpe_interval(returns, 252.0).low)
    assert math.isnan(mean_interval(returns).high)


def test_nonsense_is_refused() -> None:
    returns = np.random.default_rng(2).normal(size=50)
    with pytest.raises(InputError):
        sharpe_interval(returns, 252.0, level=1.0)
    with pytest.raises(InputError):
        sharpe_interval(returns, 252.0, resamples=0)


def test_blocks_grow_with_the_series_and_with_the_overlap() -> None:
    assert [block_length(count) for count in (0, 1, 1_000, 8_000)] == [1.0, 1.0, 10.0, 20.0]
    assert block_length(1_000, overlap=24) == 46.0
