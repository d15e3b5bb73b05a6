from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import SplitSpec
from tidemill.domain.intervals import Interval
from tidemill.validation.labels import forward_return
from tidemill.validation.splits import (
    TEST_LADDER,
    Fold,
    describe,
    embargo_length,
    rows_with_history,
    scoring_rows,
    suggest_splits,
    training_rows,
    walk_forward,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def days(count: int, step: int = 1) -> list[datetime]:
    return [START + timedelta(days=step * number) for number in range(count)]


def labelled(offsets: dict[str, list[int]], horizon: int) -> pl.DataFrame:
    """Labelled rows of symbols that have bars on the given days only."""
    rows = [
        (symbol, START + timedelta(days=day), 1.0 + day % 7) for symbol in sorted(offsets) for day in sorted(offsets[symbol])
    ]
    frame = pl.DataFrame(rows, schema={"symbol": pl.String, "open_time": TIME, "open": pl.Float64}, orient="row")
    return frame.join(forward_return(frame, horizon, Interval.parse("1d")), on=("symbol", "open_time"), maintain_order="left")


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], SplitSpec, int, int]:
    """(days with a bar, spec, horizon, look-back), always with enough of them."""
    horizon, lookback = draw(st.integers(1, 4)), draw(st.integers(0, 6))
    train = max(horizon, lookback) + horizon + 2 + draw(st.integers(0, 8))
    test, folds = draw(st.integers(horizon, 6)), draw(st.integers(1, 4))
    count = train + (folds - 1) * test + draw(st.integers(1, test))
    gaps = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    offsets = [sum(gaps[:number]) for number in range(count)]
    return offsets, SplitSpec(train=train, test=test, min_folds=folds), horizon, lookback


def folds_of(case: tuple[list[int], SplitSpec, int, int], until: int | None = None) -> list[Fold]:
    offsets, spec, horizon, lookback = case
    return walk_forward([START + timedelta(days=day) for day in offsets[:until]], spec, horizon=horizon, lookback=lookback)


@given(cases())
def test_test_windows_are_disjoint_and_cover_every_bar_after_the_first_training_window(
    case: tuple[list[int], SplitSpec, int, int],
) -> None:
    offsets, spec, _, _ = case
    folds = folds_of(case)
    for number, day in enumerate(offsets):
        inside = [fold for fold in folds if fold.test_start <= START + timedelta(days=day) < fold.test_end]
        assert len(inside) == (0 if number < spec.train else 1)


@given(cases(), st.data())
def test_no_training_label_ends_after_the_test_start_less_the_embargo(
    case: tuple[list[int], SplitSpec, int, int], data: st.DataObject
) -> None:
    offsets, spec, horizon, lookback = case
    own = {name: data.draw(st.sets(st.sampled_from(offsets))) for name in ("A", "B")} | {"C": set(offsets)}
    frame = labelled({name: sorted(some) for name, some in own.items()}, horizon)
    times = [START + timedelta(days=day) for day in offsets]
    embargo = embargo_length(spec, horizon=horizon, lookback=lookback)
    for fold in folds_of(case):
        rows = training_rows(frame, fold)
        limit = times[times.index(fold.test_start) - embargo]
        ends = rows["label_end_at"].drop_nulls()
        assert all(end <= limit for end in ends)
        assert all(time < limit for time in rows["open_time"])


@settings(max_examples=40)
@given(cases(), st.data())
def test_training_rows_agree_with_a_brute_force_over_every_pair_of_rows(
    case: tuple[list[int], SplitSpec, int, int], data: st.DataObject
) -> None:
    offsets, spec, horizon, lookback = case
    own = {name: data.draw(st.sets(st.sampled_from(offsets))) for name in ("A", "B")}
    frame = labelled({"all": offsets} | {name: sorted(some) for name, some in own.items()}, horizon)
    embargo = max(horizon, lookback)
    position = {START + timedelta(days=day): number for number, day in enumerate(offsets)}
    for fold in folds_of(case):
        first_test = position[fold.test_start]
        expected = set()
        for symbol, time, _, label, end in frame.rows():
            at = position[time]
            # A training row lies in its window and, through its label, stays off every bar that a test row can look back on.
            reach = position[end] if end is not None else at
            clear = all(max(at + 1, reach) <= other - embargo for other in range(first_test, first_test + spec.test))
            if first_test - spec.train <= at and clear and label is not None:
                expected.add((symbol, time))
        rows = training_rows(frame, fold).filter(pl.col("label").is_not_null())
        assert set(rows.select("symbol", "open_time").rows()) == expected


@given(cases(), st.data())
def test_new_bars_move_no_boundary(case: tuple[list[int], SplitSpec, int, int], data: st.DataObject) -> None:
    offsets, spec, _, _ = case
    fewest = spec.train + (spec.min_folds - 1) * spec.test + 1
    until = data.draw(st.integers(fewest, len(offsets)))
    before, after = folds_of(case, until), folds_of(case)
    last_bar = START + timedelta(days=offsets[until - 1])
    for old, new in zip(before, after, strict=False):
        assert (old.number, old.train_start, old.train_end, old.test_start) == (
            new.number,
            new.train_start,
            new.train_end,
            new.test_start,
        )
        assert (old.test_end == new.test_end) or old is before[-1]
        assert new.test_end >= min(old.test_end, last_bar)


def test_a_full_last_window_ends_where_it_will_end_when_the_next_bar_arrives() -> None:
    spec = SplitSpec(train=10, test=5, min_folds=1)
    full, more = (walk_forward(days(count), spec, horizon=1)[0] for count in (15, 16))
    assert full == more
    assert full.test_end == START + timedelta(days=15)


def test_the_sp500_panel_gets_seven_folds_of_378_and_126_with_the_last_one_partial() -> None:
    spec = suggest_splits(1_259, embargo=60)
    folds = walk_forward(days(1_259), spec, horizon=5, lookback=60)
    assert (spec.train, spec.test, len(folds)) == (378, 126, 7)
    assert folds[-1].test_end - folds[-1].test_start == timedelta(days=125)
    assert folds[0].test_start - folds[0].train_end == timedelta(days=60)


def test_times_may_come_repeated_unsorted_and_from_many_symbols() -> None:
    spec = SplitSpec(train=10, test=5, min_folds=2)
    once = walk_forward(days(20), spec, horizon=1)
    assert walk_forward(pl.Series(days(20)[::-1] * 3, dtype=TIME), spec, horizon=1) == once


def test_too_few_bars_are_refused_with_what_would_fit() -> None:
    with pytest.raises(InputError, match=r"500 bar times give 1 folds .* train: 126 and test: 42 would fit"):
        walk_forward(days(500), SplitSpec(train=378, test=126), horizon=5, lookback=60)


def test_far_too_few_bars_are_refused_with_how_many_are_needed() -> None:
    with pytest.raises(InputError, match=r"3 bar times .* at least 45 are needed"):
        walk_forward(days(3), SplitSpec(train=30, test=10), horizon=1)


def test_no_bars_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="0 bar times"):
        walk_forward([], SplitSpec(train=30, test=10), horizon=1)


def test_an_embargo_that_leaves_no_training_row_is_refused() -> None:
    with pytest.raises(InputError, match="keeps no row after an embargo of 60"):
        walk_forward(days(900), SplitSpec(train=63, test=21), horizon=5, lookback=60)


def test_a_label_longer_than_a_test_window_is_refused_and_none_is_suggested() -> None:
    spec = SplitSpec(train=200, test=10)
    assert len(walk_forward(days(400), spec, horizon=10)) == 20
    with pytest.raises(InputError, match=r"A label of 11 bars is longer than a test window of 10 bar times, .* at least 11"):
        walk_forward(days(400), spec, horizon=11)
    for horizon in (1, 6, 40, 126):
        assert suggest_splits(2_000, embargo=horizon, horizon=horizon).test >= horizon
    with pytest.raises(InputError, match="at least"):
        suggest_splits(300, embargo=60, horizon=60)
    with pytest.raises(InputError, match="longer than any test window"):
        suggest_splits(10**6, horizon=20_000)


@pytest.mark.parametrize(
    "spec", [SplitSpec(train=0, test=5), SplitSpec(train=5, test=0), SplitSpec(train=30, test=5, embargo=-1)]
)
def test_windows_that_make_no_sense_are_refused(spec: SplitSpec) -> None:
    with pytest.raises(InputError):
        walk_forward(days(200), spec, horizon=1)


def test_a_horizon_below_one_bar_is_refused() -> None:
    with pytest.raises(InputError, match="no split"):
        embargo_length(SplitSpec(train=10, test=5), horizon=0, lookback=3)


def test_times_without_a_zone_are_refused() -> None:
    with pytest.raises(InputError, match="UTC"):
        walk_forward(pl.Series([datetime(2024, 1, 1)]), SplitSpec(train=10, test=5), horizon=1)


def test_the_embargo_is_the_longer_of_horizon_and_look_back_unless_it_is_given() -> None:
    spec = SplitSpec(train=10, test=5)
    assert embargo_length(spec, horizon=5, lookback=3) == 5
    assert embargo_length(spec, horizon=5, lookback=30) == 30
    assert embargo_length(SplitSpec(train=10, test=5, embargo=0), horizon=5, lookback=30) == 0


@given(st.integers(60, 200_000), st.integers(0, 100))
def test_suggested_splits_always_give_six_full_folds_and_half_of_the_window_past_the_embargo(count: int, embargo: int) -> None:
    try:
        spec = suggest_splits(count, embargo=embargo)
    except InputError as exc:
        needed = int(str(exc).split("at least ")[1].split(" ")[0])
        assert count < needed
        assert suggest_splits(needed, embargo=embargo).test in TEST_LADDER
        return
    assert (count - spec.train) // spec.test >= 6
    assert spec.train >= 2 * embargo


@pytest.mark.parametrize(("count", "test"), [(1_259, 126), (3_270, 252), (6_000, 504), (252, 21)])
def test_a_few_more_bars_do_not_change_the_suggestion(count: int, test: int) -> None:
    assert {suggest_splits(count + more).test for more in range(count // 20)} == {test}


def test_scoring_rows_are_the_test_window_and_so_many_own_bars_before_it() -> None:
    frame = labelled({"A": list(range(30)), "B": list(range(0, 30, 3))}, 1)
    fold = walk_forward(days(30), SplitSpec(train=10, test=10, min_folds=2), horizon=1)[0]
    rows = scoring_rows(frame, fold, history=2)
    assert rows.filter(pl.col("symbol") == "A")["open_time"].to_list() == days(30)[8:20]
    assert rows.filter(pl.col("symbol") == "B")["open_time"].to_list() == [days(30)[day] for day in (6, 9, 12, 15, 18)]
    assert rows_with_history(frame, fold.test_start, 0)["open_time"].min() == fold.test_start


def test_folds_are_described_in_one_line_with_their_embargo() -> None:
    folds = walk_forward(days(40), SplitSpec(train=20, test=10, min_folds=2), horizon=2, lookback=7)
    assert "2 walk-forward folds" in describe(folds, 7)
    assert "embargo 7 bar times" in describe(folds, 7)
