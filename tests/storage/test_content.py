"""The version of a frame depends on its content alone."""

import subprocess
import sys
from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.domain.errors import InputError
from tidemill.storage.content import content_version

FRAME = pl.DataFrame(
    {
        "symbol": ["A", "A", "é", None],
        "day": [date(2024, 1, day) for day in (1, 2, 3, 4)],
        "x": [1.5, None, float("nan"), -0.0],
        "n": [1, 2, None, 4],
        "flag": [True, False, None, True],
    }
)
# Computed once; a change of this value would make everything in every lake look new.
VERSION = "80754fe569e06e8516da44211144da83"


def test_the_version_is_the_same_in_every_process_and_for_ever() -> None:
    assert content_version(FRAME) == VERSION
    program = (
        "from tests.storage.test_content import FRAME; "
        "from tidemill.storage.content import content_version; print(content_version(FRAME))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == VERSION


def test_how_a_frame_lies_in_memory_does_not_matter() -> None:
    pieces = pl.concat([FRAME.slice(row, 1) for row in range(FRAME.height)], rechunk=False)
    assert content_version(pieces) == VERSION
    assert content_version(FRAME.with_columns(pl.col("symbol").cast(pl.Categorical))) == VERSION
    assert content_version(pl.concat([FRAME, FRAME]).tail(FRAME.height)) == VERSION


@pytest.mark.parametrize(
    "change",
    [
        FRAME.reverse(),
        FRAME.head(3),
        FRAME.rename({"x": "y"}),
        FRAME.select(reversed(FRAME.columns)),
        FRAME.with_columns(pl.col("n").cast(pl.Int32)),
        FRAME.with_columns(pl.col("x").fill_null(0.0)),
        FRAME.with_columns(pl.col("x").fill_nan(None)),
        FRAME.with_columns(x=pl.col("x").replace(-0.0, 0.0).abs()),
        FRAME.with_columns(pl.col("symbol").fill_null("")),
        FRAME.with_columns(pl.col("flag").fill_null(False)),
    ],
    ids=range(10),
)
def test_any_change_of_the_content_changes_the_version(change: pl.DataFrame) -> None:
    assert content_version(change) != VERSION


def test_all_ways_to_write_nan_are_one() -> None:
    import numpy as np

    quiet, other = np.array([0x7FF8000000000000, 0xFFF8000000000001], dtype=np.uint64).view(np.float64)
    assert content_version(pl.DataFrame({"x": [quiet, 1.0]})) == content_version(pl.DataFrame({"x": [other, 1.0]}))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=3), max_size=6), st.lists(st.text(max_size=3), max_size=6))
def test_texts_are_told_apart_wherever_they_are_cut(first: list[str], second: list[str]) -> None:
    versions = [content_version(pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})) for texts in (first, second)]
    assert (versions[0] == versions[1]) == (first == second)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="'lists' holds"):
        content_version(pl.DataFrame({"lists": [[1, 2]]}))
