"""CSCV against the definition carried out word for word, and clusters that are known beforehand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata

from tidemill.domain.errors import InputError
from tidemill.validation.overfitting import (
    block_count,
    cluster,
    cluster_sharpes,
    correlations,
    probability_of_overfitting,
)

Floats = NDArray[np.float64]


def sharpe(returns: Floats) -> Floats:
    spread: Floats = returns.std(axis=0, ddof=1)
    found: Floats = np.divide(returns.mean(axis=0), spread, out=np.zeros(returns.shape[1]), where=spread > 1e-12)
    return found


def by_the_book(returns: Floats, blocks: int) -> tuple[float, list[float]]:
    """PBO and sorted logits, split by split, as Bailey, Borwein, López de Prado & Zhu describe it."""
    size = len(returns) // blocks
    parts = np.split(returns[len(returns) - size * blocks :], blocks)
    logits = []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[at] for at in chosen])
        outside = np.concatenate([parts[at] for at in range(blocks) if at not in chosen])
        best = int(np.argmax(sharpe(inside)))
        share = rankdata(sharpe(outside))[best] / (returns.shape[1] + 1)
        logits.append(math.log(share / (1 - share)))
    return sum(logit <= 1e-12 for logit in logits) / len(logits), sorted(logits)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.sampled_from([2, 4, 6, 8]), st.integers(0, 7))
def test_it_is_the_definition_carried_out_split_by_split(seed: int, trials: int, blocks: int, rest: int) -> None:
    random = np.random.default_rng(seed)
    returns = random.normal(random.normal(0, 0.001, trials), 0.01, (blocks * 9 + rest % blocks, trials))
    found = probability_of_overfitting(returns, blocks)
    pbo, logits = by_the_book(returns, blocks)
    assert found.pbo == pytest.approx(pbo)
    assert sorted(found.logits) == pytest.approx(logits, abs=1e-9)
    assert sum(found.best) == found.splits
    assert sum(found.failed) == round(pbo * found.splits)
    assert (found.splits, found.times) == (math.comb(blocks, blocks // 2), blocks * 9)


def test_a_configuration_that_is_better_everywhere_is_not_overfitted() -> None:
    returns = np.random.default_rng(1).normal(0.0, 0.01, (800, 20))
    returns[:, 7] += 0.004
    found = probability_of_overfitting(returns)
    assert found.pbo < 0.01
    assert found.loss < 0.01
    assert found.best[7] > 0.99 * found.splits
    assert found.pbo_when_best(7) < 0.01


def test_the_best_of_noise_is_as_often_below_the_median_as_above_on_average() -> None:
    random = np.random.default_rng(2)
    found = [probability_of_overfitting(random.normal(0.0, 0.01, (400, 30)), 10).pbo for _ in range(40)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_a_configuration_that_never_trades_has_a_sharpe_ratio_of_zero() -> None:
    returns = np.random.default_rng(3).normal(-0.001, 0.01, (200, 3))
    returns[:, 1] = 0.0
    found = probability_of_overfitting(returns, 4)
    assert found.pbo == pytest.approx(by_the_book(returns, 4)[0])


@pytest.mark.parametrize(("shape", "blocks"), [((100, 5), 7), ((100, 5), 0), ((100, 1), 4), ((10, 5), 8)])
def test_what_cannot_be_cut_is_refused(shape: tuple[int, int], blocks: int) -> None:
    with pytest.raises(InputError):
        probability_of_overfitting(np.random.default_rng(0).normal(size=shape), blocks)


def test_missing_returns_are_refused() -> None:
    returns = np.random.default_rng(0).normal(size=(100, 4))
    returns[3, 2] = np.nan
    with pytest.raises(InputError, match="not a number"):
        probability_of_overfitting(returns, 4)


def test_the_number_of_blocks_is_even_and_leaves_each_five_times() -> None:
    assert [block_count(times, 6) for times in (3, 10, 24, 79, 80, 5_000)] == [0, 2, 4, 14, 16, 16]
    assert block_count(5_000, 1_000) == 12


def test_copies_and_scaled_copies_are_one_trial() -> None:
    random = np.random.default_rng(5)
    ideas = random.normal(0.0, 0.01, (500, 4))
    copies = np.column_stack([ideas[:, at % 4] * (1 + at) + random.normal(0, 0.002 * (1 + at), 500) for at in range(20)])
    labels = cluster(copies)
    assert len(set(labels.tolist())) == 4
    for at in range(20):
        assert labels[at] == labels[at % 4]
    assert cluster(random.normal(size=(500, 12))).max() == 11
    assert cluster(ideas[:, :1]).tolist() == [0]
    assert cluster(ideas[:, :0]).tolist() == []


def test_thousands_of_trials_are_clustered_in_portions() -> None:
    random = np.random.default_rng(9)
    ideas = random.normal(0.0, 0.01, (120, 3))
    many = ideas[:, np.arange(4_500) % 3] + random.normal(0.0, 0.001, (120, 4_500))
    labels = cluster(many)
    assert len(set(labels.tolist())) == 3
    assert (labels == labels[np.arange(4_500) % 3]).all()


def test_pairs_are_correlated_over_the_times_that_both_have() -> None:
    random = np.random.default_rng(6)
    returns = random.normal(size=(300, 3))
    returns[:, 1] += returns[:, 0]
    whole = correlations(returns)
    pair = np.corrcoef(returns[150:, 0], returns[150:, 1])
    assert np.allclose(whole, np.corrcoef(returns.T), atol=1e-12)
    late = returns.copy()
    late[:150, 1] = np.nan
    late[:, 2] = np.nan
    found = correlations(late)
    assert found[0, 1] == pytest.approx(pair[0, 1], abs=0.02)
    assert found[0, 2] == 0.0


def test_a_cluster_is_judged_by_its_portfolio() -> None:
    random = np.random.default_rng(7)
    first = random.normal(0.001, 0.01, 400)
    returns = np.column_stack([first, 3.0 * first, random.normal(0.0, 0.01, 400)])
    found = cluster_sharpes(returns, np.array([0, 0, 1]))
    assert found[0] == pytest.approx(first.mean() / first.std(ddof=1))
    assert found[1] == pytest.approx(returns[:, 2].mean() / returns[:, 2].std(ddof=1))
    assert cluster_sharpes(returns[:, :0], np.array([], dtype=np.int64)).size == 0
