"""Predictions that do not count: rows without inputs, rows from another world, engines that say what they never said, or
contradict each other.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tidemill.quality.validity import (
    DISTANCE,
    PastRange,
    disagreement,
    distances,
    feature_bounds,
    missing_share,
    no_rejections,
    outside,
    past_range,
    rejected_rows,
    widened,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = tuple(f"f{at}" for at in range(8))


def features(rows: int, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    times = pl.Series([START + timedelta(days=at) for at in range(rows)]).cast(pl.Datetime("us", "UTC"))
    values = {name: random.standard_t(4, rows) * (at + 1) + 10 * at for at, name in enumerate(NAMES)}
    return pl.DataFrame({"symbol": ["A"] * rows, "open_time": times, **values})


def test_rows_like_those_of_the_training_window_are_near_and_a_row_from_another_world_is_far() -> None:
    bounds = feature_bounds(features(5_000), NAMES)
    rows = features(2_000, seed=1)
    assert distances(rows, bounds).max() < 5.0  # type: ignore[operator]  # a float
    there = pl.col("open_time") == START + timedelta(days=7)
    strange = rows.with_columns(pl.when(there).then(1e6).otherwise(pl.col(name)).alias(name) for name in NAMES)
    found = rejected_rows(strange, distances(strange, bounds), 10.0, DISTANCE)
    assert found.select("symbol", "open_time", "why", "limit").rows() == [("A", START + timedelta(days=7), DISTANCE, 10.0)]
    assert found["value"][0] == pytest.approx(100.0)
    one_feature = rows.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(-1e9).otherwise("f2").alias("f2"))
    assert distances(one_feature, bounds).arg_max() == 3
    assert distances(one_feature, bounds)[3] == pytest.approx(100.0 / np.sqrt(8), rel=0.05)


def test_the_edge_of_every_feature_is_at_distance_one() -> None:
    bounds = feature_bounds(features(5_000), NAMES)
    edge = pl.DataFrame({row["feature"]: [row["high"], row["low"], row["median"]] for row in bounds.to_dicts()})
    assert distances(edge, bounds).to_list() == pytest.approx([1.0, 1.0, 0.0])


def test_unknown_and_infinite_features_are_counted_and_not_measured() -> None:
    rows = features(3).with_columns(
        pl.Series("f0", [None, float("nan"), 1.0]), pl.Series("f1", [float("inf"), 1.0, 1.0]), pl.Series("f2", [1.0, 1.0, 1.0])
    )
    assert missing_share(rows, NAMES).to_list() == [2 / 8, 1 / 8, 0.0]
    assert distances(rows, feature_bounds(features(500), NAMES)).is_finite().all()
    assert missing_share(rows, ()).to_list() == [0.0] * 3
    empty = rows.with_columns(pl.lit(None, pl.Float64).alias(name) for name in NAMES)
    assert missing_share(empty, NAMES).to_list() == [1.0] * 3
    assert distances(empty, feature_bounds(features(500), NAMES)).is_nan().all()
    assert rejected_rows(empty, distances(empty, feature_bounds(features(500), NAMES)), 0.0, DISTANCE).equals(no_rejections())


def test_a_feature_that_did_not_vary_or_was_not_there_is_not_judged() -> None:
    constant = features(100).with_columns(pl.lit(3.0).alias("f0"), pl.lit(None, pl.Float64).alias("f1"))
    bounds = feature_bounds(constant, ("f0", "f1"))
    assert bounds.row(1) == ("f1", None, None, None)
    assert distances(features(5), bounds).is_nan().all()


def test_a_feature_at_its_bound_takes_the_reach_of_the_other_side() -> None:
    mostly_zero = pl.DataFrame({"x": [0.0] * 950 + [5.0] * 50})
    bounds = feature_bounds(mostly_zero, ("x",))
    assert distances(pl.DataFrame({"x": [-50.0, 5.0]}), bounds).to_list() == pytest.approx([10.0, 1.0])


def test_a_prediction_outside_of_its_engines_past_is_measured_in_widths_of_it() -> None:
    past = past_range(pl.Series(np.linspace(-1.0, 1.0, 101)))
    assert past is not None
    assert (past.low, past.high, past.size) == (pytest.approx(-0.98), pytest.approx(0.98), 101)
    apart = outside(pl.Series([0.0, 0.98 + 1.96 * 2, -0.98 - 1.96 * 5, None, float("nan")]), past)
    assert apart[:3].to_list() == pytest.approx([0.0, 2.0, 5.0])
    assert apart[3:].is_nan().all()
    assert outside(pl.Series([1.0]), PastRange(0.0, 0.0, 9)).is_nan().all()  # an engine that always said the same
    assert past_range(pl.Series([None, float("nan")], dtype=pl.Float64)) is None


def test_ranges_of_earlier_folds_are_taken_together() -> None:
    assert widened([None, PastRange(-1.0, 2.0, 10), PastRange(-3.0, 1.0, 5)]) == PastRange(-3.0, 2.0, 15)
    assert widened([None]) is None


def test_engines_that_rank_a_symbol_first_and_last_contradict_each_other() -> None:
    count = 5
    rank = (np.arange(1.0, count + 1) - 3.0) / np.sqrt((count * count - 1) / 12)
    frame = pl.DataFrame({"open_time": [START] * count, "x": rank, "y": rank[::-1], "z": [None] * count},
                         schema_overrides={"z": pl.Float64})  # fmt: skip
    assert disagreement(frame, ("x", "y", "z")).to_list() == pytest.approx([1.0, 0.5, 0.0, 0.5, 1.0])
    assert disagreement(frame.with_columns(pl.col("x").alias("y")), ("x", "y")).to_list() == pytest.approx([0.0] * 5)
    assert disagreement(frame, ("x",)).is_nan().all()
    assert disagreement(frame[:1], ("x", "y")).is_nan().all()


def test_empty_frames_are_judged_without_complaint() -> None:
    none = features(3).clear()
    bounds = feature_bounds(none, NAMES)
    assert distances(none, bounds).len() == 0
    assert missing_share(none, NAMES).len() == 0
    assert rejected_rows(none, distances(none, bounds), 1.0, DISTANCE).equals(no_rejections())
