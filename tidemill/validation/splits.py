"""Walk-forward splits over bar times, all symbols together, purged by label end and embargoed (NUMBERS: Labels, splits).

    |---------------- train window ----------------|--- test ---|
    |------- usable training rows -------|- embargo -|
                                         ^ cut (train_end): no training row and no training label lies after it

Windows are counted in bar times from the first one, so a new bar never moves a boundary; it only lengthens the last test
window or opens the next. The embargo is taken from the end of the training window: what a row of the test window can look
back on takes no part in any training label.
"""

import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import SplitSpec
from tidemill.validation.panel import TIME, require_columns, require_panel

# Test lengths that `suggest_splits` picks from; coarse, so that its answer stays the same while data grow.
TEST_LADDER = (5, 10, 21, 42, 63, 126, 252, 504, 1_008, 2_016, 4_032, 8_064, 16_128)
MINIMUM_FOLDS = 6
_TRAIN_PER_TEST = 3


class Fold(msgspec.Struct, frozen=True):
    """One training window and the test window after it. Times are open times of bars; each pair is half-open."""

    number: int
    train_start: datetime
    train_end: datetime
    test_start: datetime
    test_end: datetime


def embargo_length(spec: SplitSpec, *, horizon: int, lookback: int) -> int:
    """Bar times removed between training and test: `spec.embargo`, or max(horizon, longest finite look-back)."""
    if horizon < 1 or lookback < 0:
        raise InputError(
            f"A label horizon of {horizon} and a look-back of {lookback} bars make no split. Give at least 1 and at least 0."
        )
    if spec.embargo is None:
        return max(horizon, lookback)
    if spec.embargo < 0:
        raise InputError(f"The embargo is {spec.embargo}; give a number of bar times of at least 0, or leave it out.")
    return spec.embargo


def require_room(spec: SplitSpec, *, horizon: int, lookback: int) -> int:
    """`embargo_length`, once it leaves some rows of the training window; else InputError."""
    embargo = embargo_length(spec, horizon=horizon, lookback=lookback)
    if spec.train <= embargo + horizon + 1:
        raise InputError(
            f"A training window of {spec.train} bar times (splits.train) keeps no row after an embargo of {embargo} and a "
            f"label of {horizon} bars. Use at least {2 * (embargo + horizon + 1)}, features that look back less, or a smaller "
            "embargo."
        )
    return embargo


def walk_forward(times: pl.Series | Iterable[datetime], spec: SplitSpec, *, horizon: int, lookback: int = 0) -> list[Fold]:
    """Folds over the unique `times` of all symbols together; every fold has a full training window and at least one test bar.

    times: open times of bars, in any order, with repeats (UTC).
    horizon: bars that a label is held. lookback: longest finite look-back of the features, in bars.

    The last test window may be shorter than `spec.test`; all others are full. Raises InputError, saying what would fit, when
    there are fewer than `spec.min_folds` folds, when the embargo leaves nothing of the training window, or when a label
    outlasts a test window.
    """
    if spec.train < 1 or spec.test < 1 or spec.min_folds < 1:
        raise InputError("The splits need a train and a test window and a fold count of at least 1.")
    embargo = require_room(spec, horizon=horizon, lookback=lookback)
    if horizon > spec.test:
        raise InputError(
            f"A label of {horizon} bars is longer than a test window of {spec.test} bar times, so no prediction of a fold has "
            f"an outcome inside it. Use a test window of at least {horizon}, or a shorter label."
        )
    grid = unique_times(times)
    folds = -(-(len(grid) - spec.train) // spec.test)
    if folds < spec.min_folds:
        raise InputError(_too_few_bars(len(grid), spec, max(folds, 0), embargo))
    step = bar_spacing(grid[: spec.train + 1])
    return [_fold(number, grid, spec, embargo, step) for number in range(folds)]


def suggest_splits(n_times: int, *, embargo: int = 0, horizon: int = 1, min_folds: int = MINIMUM_FOLDS) -> SplitSpec:
    """Train and test windows for `n_times` bar times: the longest test window of a ladder that gives ≥ `min_folds` full folds.

    train = 3 × test, or more tests where the embargo would take more than half of it. A test window is as long as the label's
    horizon at least. The answer only moves when `n_times` passes a rung. Raises InputError when even the shortest window does
    not fit.
    """
    ladder = [test for test in TEST_LADDER if test >= horizon]
    if not ladder:
        raise InputError(f"A label of {horizon} bars is longer than any test window ({TEST_LADDER[-1]}). Use a shorter label.")
    for test in reversed(ladder):
        multiple = _train_multiple(test, embargo)
        if (multiple + min_folds) * test <= n_times:
            return SplitSpec(train=multiple * test, test=test, min_folds=min_folds)
    needed = min((_train_multiple(test, embargo) + min_folds) * test for test in ladder)
    raise InputError(
        f"{n_times} bar times are too few for {min_folds} folds with an embargo of {embargo}: at least {needed} are needed. "
        "Take a longer history, a shorter interval, or features that look back less."
    )


def training_rows(frame: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    """Rows of `frame[symbol, open_time, …, label, label_end_at]` that `fold` may be trained on.

    Every row with train_start ≤ open_time < train_end stays, since its features were known; its label is purged (null, with
    `label_end_at`) when it ends after train_end, which is at or before the start of the test window.
    """
    require_columns(frame, ("symbol", "open_time", "label", "label_end_at"), "training frame")
    inside = frame.filter((pl.col("open_time") >= fold.train_start) & (pl.col("open_time") < fold.train_end))
    kept = pl.col("label_end_at") <= fold.train_end
    return inside.with_columns(
        pl.when(kept).then(pl.col("label")).alias("label"), pl.when(kept).then(pl.col("label_end_at")).alias("label_end_at")
    )


def scoring_rows(frame: pl.DataFrame, fold: Fold, *, history: int = 0) -> pl.DataFrame:
    """Rows of the test window of `fold`, and up to `history` of each symbol's own bars before it."""
    require_panel(frame, "scoring frame")
    return rows_with_history(frame.filter(pl.col("open_time") < fold.test_end), fold.test_start, history)


def rows_with_history(frame: pl.DataFrame, start: datetime, history: int) -> pl.DataFrame:
    """Rows from `start` on, and up to `history` of each symbol's own bars before it. `frame` is a sorted panel."""
    earlier = (pl.col("open_time") < start).sum().over("symbol") - pl.int_range(pl.len()).over("symbol")
    return frame.filter((pl.col("open_time") >= start) | (earlier <= history))


def describe(folds: list[Fold], embargo: int) -> str:
    """One line for a person: how many folds, over what time, and the embargo in force."""
    first, last = folds[0], folds[-1]
    return (
        f"{len(folds)} walk-forward folds, tested {first.test_start:%Y-%m-%d} to {last.test_end:%Y-%m-%d}, "
        f"embargo {embargo} bar times, labels purged at the end of each training window"
    )


def _fold(number: int, grid: list[datetime], spec: SplitSpec, embargo: int, step: timedelta) -> Fold:
    test = spec.train + number * spec.test
    after = test + spec.test
    end = min(after, len(grid)) - 1
    # The bar after a window may be days away or not there yet, so the window ends one bar length after its last bar.
    test_end = grid[end] + step if after >= len(grid) else min(grid[end] + step, grid[after])
    return Fold(number, grid[test - spec.train], grid[test - embargo], grid[test], test_end)


def unique_times(times: pl.Series | Iterable[datetime]) -> list[datetime]:
    series = times if isinstance(times, pl.Series) else pl.Series("open_time", list(times), dtype=TIME)
    if series.dtype != TIME:
        raise InputError(f"The bar times are {series.dtype}; give UTC times in microseconds.")
    grid: list[datetime] = series.drop_nulls().unique().sort().to_list()
    return grid


def bar_spacing(grid: list[datetime]) -> timedelta:
    """The shortest distance of the first window: one bar. Taken there, so that later bars do not change it."""
    return min(later - earlier for earlier, later in itertools.pairwise(grid))


def _train_multiple(test: int, embargo: int) -> int:
    return max(_TRAIN_PER_TEST, -(-2 * embargo // test))


def _too_few_bars(count: int, spec: SplitSpec, folds: int, embargo: int) -> str:
    try:
        fitting = suggest_splits(count, embargo=embargo, min_folds=spec.min_folds)
        advice = f"train: {fitting.train} and test: {fitting.test} would fit."
    except InputError as exc:
        advice = str(exc)
    return (
        f"{count} bar times give {folds} folds of train {spec.train} and test {spec.test}, "
        f"but {spec.min_folds} are needed; {advice}"
    )
