"""Was the best of many configurations chosen for its skill or for its luck: PBO by CSCV, and how many trials there really were.

Bailey, Borwein, López de Prado & Zhu (2017), "The probability of backtest overfitting", Journal of Computational Finance 20(4).
"""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import InputError
from tidemill.validation.sharpe import NAN, Floats, moments

BLOCKS = 16
BLOCKS_OF_MANY = 12  # 924 splits instead of 12,870 where more than `_MANY` trials would take seconds
SMALLEST_BLOCK = 5
_MANY = 100
# Trials whose average correlation is at least this much are called one: half of their movement, or more, is the same.
SAME_CLUSTER = 0.5
_CHUNK = 2_000_000  # numbers held at once, so that thousands of trials need no more memory than a few
_AT_ONCE = 2_000


class Overfitting(msgspec.Struct, frozen=True, kw_only=True):
    """What CSCV found. pbo: share of the splits in which the best trial in sample was not above the median out of sample.

    logits: ln(ω / (1 − ω)) of each split, ω = rank of that trial out of sample / (N + 1). loss: share of the splits in which it
    lost money out of sample. blocks: S, into how many the times were cut. times, trials: what took part. best, failed: of each
    trial, in how many splits it was the best in sample, and in how many of those it was not above the median out of sample.
    """

    pbo: float
    loss: float
    blocks: int
    splits: int
    times: int
    trials: int
    best: tuple[int, ...]
    failed: tuple[int, ...]
    logits: tuple[float, ...]

    def pbo_when_best(self, trial: int) -> float:
        """Of the splits in which this trial was the best in sample, the share in which it failed; NaN if it never was."""
        return self.failed[trial] / self.best[trial] if self.best[trial] else NAN


def block_count(times: int, trials: int) -> int:
    """How many blocks to use: 16, 12 for more than 100 trials, fewer where a block would have less than 5 times; 0 for none."""
    return min(BLOCKS if trials <= _MANY else BLOCKS_OF_MANY, times // SMALLEST_BLOCK) // 2 * 2


def probability_of_overfitting(returns: Floats, blocks: int = BLOCKS) -> Overfitting:
    """CSCV on returns [times, trials], none of them NaN.

    The times are cut into S = `blocks` equal ones (S even; what is left over of the oldest times takes no part). In each of the
    S!/(S/2)!² ways to take half of them as the sample, the trial with the best Sharpe ratio in sample is ranked among all by
    its Sharpe ratio in the other half; ties share a rank. PBO is the share of logits ≤ 0. A trial without a spread has Sharpe
    ratio 0.

    Raises InputError for an odd S or one below 2, fewer than two trials, fewer than two times a block, and NaN.
    """
    length, trials = returns.shape
    if blocks < 2 or blocks % 2:
        raise InputError(f"CSCV cuts the times into an even number of blocks, at least 2, not {blocks}.")
    if trials < 2 or length < 2 * blocks:
        raise InputError(
            f"{trials} trials over {length} times cannot be compared over {blocks} blocks. "
            "Give more trials and times, or fewer blocks."
        )
    if not np.isfinite(returns).all():
        raise InputError("A return is not a number. Give the times that all trials have in common.")
    size = length // blocks
    used = returns[length - size * blocks :]
    used = used - used.mean(axis=0)  # a shift that is taken back below; without it small spreads would drown
    shift = returns[length - size * blocks :].mean(axis=0)
    sums = used.reshape(blocks, size, trials).sum(axis=1)
    squares = (used * used).reshape(blocks, size, trials).sum(axis=1)
    masks = _halves(blocks)
    count, step = size * blocks // 2, max(1, _CHUNK // trials)
    parts, winners, lost = [], [], 0
    for start in range(0, len(masks), step):
        half = masks[start : start + step]
        one = _sharpe(half, sums, squares, shift, count)
        other = _sharpe(1.0 - half, sums, squares, shift, count)
        for inside, outside in ((one, other), (other, one)):
            winners.append(inside.argmax(axis=1))
            chosen = outside[np.arange(len(half)), winners[-1]][:, None]
            parts.append(_logit(outside, chosen))
            lost += int((chosen < 0.0).sum())
    found, best = np.concatenate(parts), np.concatenate(winners)
    return Overfitting(
        pbo=float((found <= 0.0).mean()),
        loss=lost / found.size,
        blocks=blocks,
        splits=found.size,
        times=size * blocks,
        trials=trials,
        best=tuple(np.bincount(best, minlength=trials).tolist()),
        failed=tuple(np.bincount(best[found <= 0.0], minlength=trials).tolist()),
        logits=tuple(found.tolist()),
    )


def _logit(outside: Floats, chosen: Floats) -> Floats:
    rank = (outside < chosen).sum(axis=1) + ((outside == chosen).sum(axis=1) + 1) / 2.0
    share = rank / (outside.shape[1] + 1)
    return np.log(share / (1.0 - share))  # type: ignore[no-any-return]  # numpy's log of an array is Any


def _halves(blocks: int) -> Floats:
    """[splits / 2, blocks] of 0 and 1: every way to choose the half of the blocks in which the first one lies."""
    rest = np.array(list(itertools.combinations(range(1, blocks), blocks // 2 - 1)), dtype=np.int64)
    masks = np.zeros((len(rest), blocks))
    masks[:, 0] = 1.0
    masks[np.arange(len(rest))[:, None], rest] = 1.0
    return masks


def _sharpe(masks: Floats, sums: Floats, squares: Floats, shift: Floats, count: int) -> Floats:
    """Per-period Sharpe ratio [splits, trials] of the chosen blocks, from sums of the centred returns and their squares."""
    mean = masks @ sums / count
    variance = np.maximum(masks @ squares / count - mean * mean, 0.0) * count / (count - 1)
    total = mean + shift
    flat = variance <= 1e-18 * np.maximum(total * total, 1e-300)
    return np.where(flat, 0.0, total / np.sqrt(np.where(flat, 1.0, variance)))


def correlations(returns: Floats) -> Floats:
    """Correlation [trials, trials] of the columns of returns [times, trials], each pair over the times that both have.

    Every column is centred by its own mean. A pair without common times, or a column without a spread, has correlation 0, so
    that it counts as different.
    """
    finite = np.isfinite(returns)
    here = finite.astype(np.float64)
    count = np.maximum(here.sum(axis=0), 1.0)
    centred = np.where(finite, returns - np.where(finite, returns, 0.0).sum(axis=0) / count, 0.0)
    shared = (centred * centred).T @ here  # of each column, over the times of the other
    scale = np.sqrt(shared * shared.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(scale > 0.0, centred.T @ centred / scale, 0.0)
    np.fill_diagonal(found, 1.0)
    return np.clip(found, -1.0, 1.0)


def cluster(returns: Floats, threshold: float = SAME_CLUSTER) -> NDArray[np.int64]:
    """Cluster number, from 0, of each column of returns [times, trials]; deterministic.

    Average linkage on the distance √((1 − ρ) / 2) of López de Prado & Lewis (2019), "Detection of false investment strategies
    using unsupervised learning methods", cut where the average distance of two clusters is that of correlation `threshold`.
    Their search for the best number of clusters is not used: it never answers one, and is not deterministic. More than 2,000
    trials are clustered in portions, and then the portfolios of what was found.
    """
    trials = returns.shape[1]
    if trials > _AT_ONCE:
        return _in_portions(returns, threshold)
    if trials < 2:
        return np.zeros(trials, dtype=np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage

    distance = np.sqrt(np.maximum(0.5 * (1.0 - correlations(returns)), 0.0))
    condensed = distance[np.triu_indices(trials, 1)]
    merged = linkage(condensed, method="average")
    labels = fcluster(merged, t=math.sqrt(0.5 * (1.0 - threshold)) + 1e-12, criterion="distance")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _in_portions(returns: Floats, threshold: float) -> NDArray[np.int64]:
    """Clusters of the portfolios of clusters; as they are when a portion holds nothing that goes together."""
    found: list[NDArray[np.int64]] = []
    count = 0
    for start in range(0, returns.shape[1], _AT_ONCE):
        labels = cluster(returns[:, start : start + _AT_ONCE], threshold)
        found.append(labels + count)
        count += int(labels.max()) + 1
    first = np.concatenate(found)
    if count > returns.shape[1] // 2:
        return first
    return cluster(_portfolios(returns, first), threshold)[first]


def cluster_sharpes(returns: Floats, labels: NDArray[np.int64]) -> Floats:
    """Per-period Sharpe ratio of each cluster's portfolio: its trials weighted by the inverse of their variance, as they do.

    At a time at which a trial has no return its weight goes to the others. NaN for a cluster without a spread.
    """
    return moments(_portfolios(returns, labels)).sharpe


def _portfolios(returns: Floats, labels: NDArray[np.int64]) -> Floats:
    """[times, clusters], NaN where no trial of a cluster has a return."""
    finite = np.isfinite(returns)
    found = np.full((returns.shape[0], int(labels.max(initial=-1)) + 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = finite.sum(axis=0)
        mean = np.where(finite, returns, 0.0).sum(axis=0) / count
        variance = np.where(finite, (returns - mean) ** 2, 0.0).sum(axis=0) / count
        weight = np.where(variance > 0.0, 1.0 / variance, 0.0)
        for number in range(found.shape[1]):
            own = labels == number
            total = np.where(finite[:, own], returns[:, own], 0.0) @ weight[own]
            found[:, number] = total / (finite[:, own] @ weight[own])
    return found
