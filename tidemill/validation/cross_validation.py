"""Purged k-fold and combinatorial purged cross-validation over unique bar times, all symbols together.

López de Prado (2018), "Advances in Financial Machine Learning", chapters 7 and 12. The times are cut into groups; the last
takes what is left over (as skfolio's splitters do; scikit-learn's KFold gives the first groups one more each).

    |--- train ---|purge|==== test group ====|purge|- embargo -|--- train ---|

A training row before a test group keeps its label if that is known when the group begins: `label_end_at` ≤ its first time. One
after it keeps its label if it opens when the last label of the group is known: `horizon` times later, and for a symbol whose
own bars have gaps when its own last label ends. Then come `embargo` more times, for features that look back on the group. On a
grid without gaps this is skfolio's `CombinatorialPurgedCV(purged_size=horizon, embargo_size=embargo)`. Walk-forward splits put
their embargo before the test window instead, since they train on nothing after it; before a group k-fold has the purge alone.

Unlike walk-forward, training rows may lie after what they are tested on: a way to see how stable a skill is, not what it would
have earned.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.validation.panel import require_columns
from tidemill.validation.splits import bar_spacing, unique_times

LARGEST_NUMBER_OF_SPLITS = 1_000


class TestedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive times that are tested together: start ≤ open_time < end.

    clear_from: the first time after it that may be trained on, None when there is none.
    """

    number: int
    start: datetime
    end: datetime
    clear_from: datetime | None


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The groups that one model is tested on; everything else, less purge and embargo, trains it."""

    number: int
    groups: tuple[TestedGroup, ...]


def purged_k_fold(times: pl.Series | Iterable[datetime], folds: int, *, horizon: int, embargo: int = 0) -> list[Split]:
    """One split for each of `folds` groups, at least 2.

    times: open times of bars, in any order, with repeats. horizon: bars that a label is held. embargo: in bar times.
    """
    if folds < 2:
        raise InputError(f"k-fold needs at least 2 folds, not {folds}.")
    return _splits(times, folds, 1, horizon, embargo)


def combinatorial_purged(
    times: pl.Series | Iterable[datetime], folds: int, test_folds: int, *, horizon: int, embargo: int = 0
) -> list[Split]:
    """One split for each way to choose `test_folds` of `folds` groups, in the order of `itertools.combinations`.

    There are C(folds, test_folds) splits and `path_count` paths. Raises InputError for fewer than 2 test folds, no fold left to
    train on, or more than 1,000 splits.
    """
    if not 2 <= test_folds < folds:
        raise InputError(f"Of {folds} folds between 2 and {folds - 1} can be tested at once, not {test_folds}.")
    if math.comb(folds, test_folds) > LARGEST_NUMBER_OF_SPLITS:
        raise InputError(
            f"{test_folds} of {folds} folds make {math.comb(folds, test_folds):,} splits, each of which trains a model; "
            f"at most {LARGEST_NUMBER_OF_SPLITS:,} are allowed. Take fewer folds."
        )
    return _splits(times, folds, test_folds, horizon, embargo)


def paths(splits: Sequence[Split]) -> list[tuple[int, ...]]:
    """Each path as the number of the split that tests its first group, its second, and so on: every group once in each path.

    The k-th path takes the k-th split that tests a group. k-fold has one path, the combinatorial kind
    C(folds − 1, test_folds − 1).
    """
    testing: dict[int, list[int]] = {}
    for split in splits:
        for group in split.groups:
            testing.setdefault(group.number, []).append(split.number)
    return list(zip(*(testing[number] for number in sorted(testing)), strict=True))


def training_part(frame: pl.DataFrame, split: Split) -> pl.DataFrame:
    """Rows of `frame[symbol, open_time, …, label, label_end_at]` outside the tested groups.

    Purged and embargoed ones have no label. They stay, since their features were known and sequence engines look back on them.
    """
    require_columns(frame, ("symbol", "open_time", "label", "label_end_at"), "training frame")
    time, kept, outside = pl.col("open_time"), pl.lit(value=True), pl.lit(value=True)
    for group in split.groups:
        inside = (time >= group.start) & (time < group.end)
        clear = pl.lit(value=False) if group.clear_from is None else time >= group.clear_from
        own_end = pl.col("label_end_at").filter(inside).max().over("symbol")
        after = clear & (own_end.is_null() | (time >= own_end))
        kept &= ((time < group.start) & (pl.col("label_end_at") <= group.start)) | ((time >= group.end) & after)
        outside &= ~inside
    return (
        frame.with_columns(kept.fill_null(value=False).alias("_kept"), outside.alias("_outside"))
        .filter(pl.col("_outside"))
        .with_columns(pl.when(pl.col("_kept")).then(pl.col(name)).alias(name) for name in ("label", "label_end_at"))
        .drop("_kept", "_outside")
    )


def _splits(times: pl.Series | Iterable[datetime], folds: int, test_folds: int, horizon: int, embargo: int) -> list[Split]:
    if horizon < 1 or embargo < 0:
        raise InputError(
            f"A label horizon of {horizon} and an embargo of {embargo} bars make no split. "
            "Give a horizon of at least 1 and an embargo of at least 0."
        )
    grid = unique_times(times)
    size = len(grid) // folds
    if size <= horizon + embargo + 1:
        raise InputError(
            f"{len(grid)} bar times in {folds} folds give {size} each, which a label of {horizon} bars and an embargo of "
            f"{embargo} use up. Take fewer folds, a smaller embargo or a longer history."
        )
    groups = [_group(number, grid, size, folds, horizon + embargo) for number in range(folds)]
    chosen = itertools.combinations(groups, test_folds)
    return [Split(number=number, groups=tested) for number, tested in enumerate(chosen)]


def _group(number: int, grid: list[datetime], size: int, folds: int, removed: int) -> TestedGroup:
    after = (number + 1) * size if number < folds - 1 else len(grid)
    return TestedGroup(
        number=number,
        start=grid[number * size],
        end=grid[after] if after < len(grid) else grid[-1] + bar_spacing(grid),
        clear_from=grid[after + removed] if after + removed < len(grid) else None,
    )
