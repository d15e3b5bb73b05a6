"""Predicates over feature and prediction frames, on good, empty and all-NaN input."""

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tidemill.quality.frames import finite_share, profile, repeated_keys, value_columns

NAN, INF = float("nan"), float("inf")
START = datetime(2024, 1, 1, tzinfo=UTC)


def frame(values: list[float | None], symbols: list[str] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": symbols or ["AB"] * len(values),
            "open_time": [START + timedelta(hours=n) for n in range(len(values))],
            "x": values,
        },
        schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "x": pl.Float64},
    )


@pytest.mark.parametrize(
    ("values", "share"), [([1.0, NAN, None, INF], 0.25), ([1.0, 2.0], 1.0), ([NAN, NAN], 0.0), ([None], 0.0), ([], NAN)]
)
def test_only_numbers_count_as_finite(values: list[float | None], share: float) -> None:
    assert finite_share(frame(values), "x") == pytest.approx(share, nan_ok=True)


def test_repeated_keys_are_counted_beyond_the_first() -> None:
    doubled = pl.concat([frame([1.0, 2.0]), frame([3.0]), frame([4.0])])
    assert repeated_keys(doubled, ["symbol", "open_time"]) == 2
    assert repeated_keys(frame([]), ["symbol", "open_time"]) == 0


def test_the_profile_measures_each_feature() -> None:
    wide = frame([1.0, 3.0, NAN, 2.0]).with_columns(
        y=pl.lit(5.0), z=pl.Series([None, None, None, INF], dtype=pl.Float64), n=pl.lit(None)
    )
    assert value_columns(wide) == ("x", "y", "z", "n")
    measured = {row["feature"]: row for row in profile(wide).iter_rows(named=True)}
    assert (measured["x"]["finite_share"], measured["x"]["last_finite_share"], measured["x"]["largest"]) == (0.75, 1.0, 3.0)
    assert measured["x"]["deviation"] == pytest.approx(1.0)
    assert (measured["y"]["deviation"], measured["z"]["infinite"], measured["z"]["finite_share"]) == (0.0, 1, 0.0)
    assert (measured["n"]["finite_share"], measured["n"]["largest"]) == (0.0, None)


def test_the_profile_of_nothing_has_a_row_for_each_feature_and_no_measures() -> None:
    (row,) = profile(frame([])).iter_rows(named=True)
    assert (row["rows"], row["finite_share"], row["infinite"]) == (0, None, 0)
    assert profile(frame([1.0]).drop("x")).height == 0
    assert all(not math.isnan(value) for value in profile(frame([NAN]))["finite_share"])
