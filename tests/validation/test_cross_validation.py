"""Purged splits: skfolio's own splitters beside them, and no training label that a test row could know of."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.model_selection import CombinatorialPurgedCV

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.validation.cross_validation import Split, combinatorial_purged, paths, purged_k_fold, training_part
from tidemill.validation.labels import forward_return

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def panel(offsets: dict[str, list[int]], horizon: int) -> pl.DataFrame:
    """Labelled rows of symbols that have bars on the given days only."""
    rows = [(symbol, START + timedelta(days=day), 1.0 + day % 7) for symbol in sorted(offsets) for day in offsets[symbol]]
    frame = pl.DataFrame(rows, schema={"symbol": pl.String, "open_time": TIME, "open": pl.Float64}, orient="row")
    return frame.join(forward_return(frame, horizon, Interval.parse("1d")), on=("symbol", "open_time"), maintain_order="left")


def days_of(frame: pl.DataFrame) -> list[int]:
    return [(time - START).days for time in frame["open_time"]]


def trained_days(frame: pl.DataFrame, split: Split) -> list[int]:
    return days_of(training_part(frame, split).drop_nulls("label"))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 4), st.integers(3, 7), st.data())
def test_they_are_those_of_skfolio_on_equal_settings(horizon: int, embargo: int, folds: int, data: st.DataObject) -> None:
    tested = data.draw(st.integers(2, folds - 1))
    count = folds * (horizon + embargo + 2) + data.draw(st.integers(0, 30))
    frame = panel({"A": list(range(count))}, horizon)
    ours = combinatorial_purged(frame["open_time"], folds, tested, horizon=horizon, embargo=embargo)
    theirs = CombinatorialPurgedCV(n_folds=folds, n_test_folds=tested, purged_size=horizon, embargo_size=embargo)
    labelled = set(range(count - horizon - 1))  # the newest rows have no label yet, which skfolio knows nothing of
    found = list(theirs.split(np.zeros((count, 1))))
    assert len(ours) == len(found)
    for split, (train, tests) in zip(ours, found, strict=True):
        assert trained_days(frame, split) == [at for at in train.tolist() if at in labelled]
        for group, test in zip(split.groups, tests, strict=True):
            assert days_of(frame.filter(pl.col("open_time").is_between(group.start, group.end, closed="left"))) == test.tolist()
    assert np.array(paths(ours)).T.tolist() == theirs.recombined_paths.tolist()


def test_k_fold_is_the_combinatorial_kind_with_one_group_at_a_time() -> None:
    frame = panel({"A": list(range(50))}, 2)
    splits = purged_k_fold(frame["open_time"], 4, horizon=2, embargo=3)
    assert [days_of(frame)[at * 12] for at in range(4)] == [(split.groups[0].start - START).days for split in splits]
    assert trained_days(frame, splits[1]) == [*range(10), *range(29, 47)]
    assert paths(splits) == [(0, 1, 2, 3)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 3), st.data())
def test_no_training_label_reaches_into_a_test_group_nor_a_test_label_into_training(
    horizon: int, embargo: int, data: st.DataObject
) -> None:
    days = list(range(60))
    offsets = {symbol: sorted(data.draw(st.sets(st.sampled_from(days), min_size=12))) for symbol in ("A", "B", "C")} | {
        "D": days
    }
    frame = panel(offsets, horizon)
    for split in combinatorial_purged(frame["open_time"], 5, 2, horizon=horizon, embargo=embargo):
        trained = training_part(frame, split).drop_nulls("label")
        for group in split.groups:
            tested = frame.filter(pl.col("open_time").is_between(group.start, group.end, closed="left"))
            assert not trained["open_time"].is_in(tested["open_time"].implode()).any()
            before = trained.filter(pl.col("open_time") < group.start)
            assert (before["label_end_at"] <= group.start).all()
            after = trained.filter(pl.col("open_time") >= group.end)
            assert group.clear_from is not None or after.is_empty()
            if group.clear_from is not None:
                assert (after["open_time"] >= group.clear_from).all()
            ends = tested.group_by("symbol").agg(pl.col("label_end_at").max().alias("known"))
            beside = after.join(ends, on="symbol").drop_nulls("known")
            assert (beside["open_time"] >= beside["known"]).all()


def test_rows_without_a_label_stay_for_engines_that_look_back() -> None:
    frame = panel({"A": list(range(40))}, 3)
    split = purged_k_fold(frame["open_time"], 4, horizon=3, embargo=2)[1]
    kept = training_part(frame, split)
    assert days_of(kept) == [*range(10), *range(20, 40)]
    assert kept["label"].is_null().equals(kept["label_end_at"].is_null())
    assert kept.columns == frame.columns


def test_every_path_tests_every_group_once() -> None:
    times = [START + timedelta(days=day) for day in range(120)]
    splits = combinatorial_purged(times, 6, 3, horizon=1)
    found = paths(splits)
    assert (len(splits), len(found)) == (20, 10)
    for number in range(6):
        testing = [split for path in found for split in [splits[path[number]]]]
        assert all(number in [group.number for group in split.groups] for split in testing)
        assert len({split.number for split in testing}) == 10


@pytest.mark.parametrize(
    ("folds", "tested", "horizon", "embargo"),
    [(5, 1, 1, 0), (5, 5, 1, 0), (20, 10, 1, 0), (5, 2, 30, 0), (5, 2, 1, 18), (5, 2, 0, 0)],
)
def test_what_makes_no_split_says_why(folds: int, tested: int, horizon: int, embargo: int) -> None:
    times = [START + timedelta(days=day) for day in range(100)]
    with pytest.raises(InputError):
        combinatorial_purged(times, folds, tested, horizon=horizon, embargo=embargo)
    with pytest.raises(InputError):
        purged_k_fold(times, 1, horizon=1)


@pytest.mark.parametrize("horizon", [19, 20, 30, 200])
def test_a_label_longer_than_a_fold_is_refused_with_what_to_change(horizon: int) -> None:
    times = [START + timedelta(days=day) for day in range(100)]
    for split in (lambda: purged_k_fold(times, 5, horizon=horizon), lambda: combinatorial_purged(times, 5, 2, horizon=horizon)):
        with pytest.raises(InputError, match=rf"20 each, which a label of {horizon} bars .* use up. Take fewer folds"):
            split()
