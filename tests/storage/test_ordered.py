from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.storage.ordered import by_symbol

START = datetime(2024, 1, 1, tzinfo=UTC)
CELLS = st.lists(st.tuples(st.sampled_from(["A", "B", "Ä", "a", "BRK.B"]), st.integers(0, 20)), unique=True, max_size=60)


def frame(cells: list[tuple[str | None, int]]) -> pl.DataFrame:
    rows = [(symbol, START + timedelta(days=day), float(at)) for at, (symbol, day) in enumerate(cells)]
    schema = {"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


@given(CELLS)
def test_rows_in_any_order_are_sorted_by_symbol_and_time(cells: list[tuple[str | None, int]]) -> None:
    rows = frame(cells)
    assert by_symbol(rows).equals(rows.sort("symbol", "open_time"))


@given(CELLS)
def test_what_is_read_period_after_period_is_sorted_alike(cells: list[tuple[str | None, int]]) -> None:
    periods = [frame(cells).filter(pl.col("open_time").is_between(START + timedelta(days=at), START + timedelta(days=at + 6)))
               .sort("symbol", "open_time") for at in (0, 7, 14)]  # fmt: skip
    rows = pl.concat(periods)
    assert by_symbol(rows).equals(rows.sort("symbol", "open_time"))


@given(st.lists(st.tuples(st.sampled_from(["A", "B", "BRK.B"]), st.integers(0, 3)), max_size=40))
def test_rows_that_are_equal_keep_their_order_with_and_without_times(cells: list[tuple[str | None, int]]) -> None:
    rows = frame(cells)
    assert by_symbol(rows).equals(rows.sort("symbol", "open_time", maintain_order=True))
    timeless = rows.drop("open_time")
    assert by_symbol(timeless).equals(timeless.sort("symbol", maintain_order=True))


@pytest.mark.parametrize("cells", [[], [("B", 1)], [("B", 2), (None, 1), ("A", 0)]])
def test_empty_single_and_nameless_rows_are_no_error(cells: list[tuple[str | None, int]]) -> None:
    rows = frame(cells)
    assert by_symbol(rows).equals(rows.sort("symbol", "open_time"))
