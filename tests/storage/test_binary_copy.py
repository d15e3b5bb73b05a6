"""The binary COPY format, against a real server and against itself."""

import math
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.domain.errors import InputError
from tidemill.storage.binary_copy import decode_grouped, encode, polars_type
from tidemill.storage.merge import read_frame
from tidemill.storage.postgres import Database

KINDS = {"a": "text", "b": "timestamptz", "c": "float8", "d": "int8", "e": "int4", "f": "bool", "g": "text"}
SCHEMA = {name: polars_type(kind) for name, kind in KINDS.items()}
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=6)
ROW = st.tuples(
    st.none() | TEXT,
    st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
    st.none() | st.floats(),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.booleans(),
    st.none() | TEXT,
)


def same(left: Any, right: Any) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return both_nan or (left == right and type(left) is type(right))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, max_size=30))
async def test_any_frame_arrives_in_postgres_as_it_was(database: Database, rows: list[tuple[object, ...]]) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row").with_row_index("n").cast({"n": pl.Int32})
    kinds = {"n": "int4", **KINDS}
    async with database.transaction() as connection:
        await connection.execute("""
            CREATE TEMP TABLE given (n int, a text, b timestamptz, c float8, d bigint, e int, f boolean, g text) ON COMMIT DROP
        """)
        assert await connection.copy_in("given", list(kinds), encode(frame, kinds)) == len(rows)
        found = await connection.fetch("SELECT a, b, c, d, e, f, g FROM given ORDER BY n")
    assert all(same(x, y) for row, record in zip(rows, found, strict=True) for x, y in zip(row, record, strict=True))


GROUPED = {"name": "text", "time": "timestamptz", "x": "float8", "n": "int8", "flag": "bool"}


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.tuples(st.text("abcé", max_size=4), st.integers(1, 700)), max_size=6),
    x=st.floats(allow_nan=False),
)
def test_rows_in_groups_are_read_back_as_they_were(groups: list[tuple[str, int]], x: float) -> None:
    names = [name for name, count in groups for _ in range(count)]
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [(name, moment, x, number, number % 2 == 0) for number, name in enumerate(names)]
    frame = pl.DataFrame(rows, schema={name: polars_type(kind) for name, kind in GROUPED.items()}, orient="row")
    assert decode_grouped(in_order(frame), GROUPED).equals(frame)


def in_order(frame: pl.DataFrame) -> bytes:
    """The COPY of a frame with the order of its rows kept: one chunk for each run of a name."""
    runs = frame.with_columns(run=pl.col("name").rle_id()).partition_by("run", maintain_order=True)
    pieces = [b"".join(list(encode(part.drop("run"), GROUPED))[1:-1]) for part in runs]
    head, *_, tail = list(encode(frame, GROUPED)) if frame.height else list(encode(frame.clear(), GROUPED))
    return head + b"".join(pieces) + tail


async def test_a_missing_column_and_a_value_that_does_not_fit_are_input_errors(database: Database) -> None:
    with pytest.raises(InputError, match="lacks the column 'b'"):
        list(encode(pl.DataFrame({"a": ["x"]}), {"a": "text", "b": "float8"}))
    with pytest.raises(InputError, match="does not fit"):
        list(encode(pl.DataFrame({"a": [2**40]}), {"a": "int4"}))
    async with database.transaction() as connection:
        await connection.execute("CREATE TEMP TABLE texts (a text) ON COMMIT DROP")
        with pytest.raises(InputError):
            await connection.copy_in("texts", ["a"], encode(pl.DataFrame({"a": ["nul\x00"]}), {"a": "text"}))
        await connection.rollback()
        await connection.execute("BEGIN")


async def test_a_query_becomes_a_typed_frame_even_without_rows(database: Database) -> None:
    frame = await read_frame(database, {"a": "text", "b": "float8"}, "SELECT 'x' AS a, 1.5::float8 AS b WHERE false")
    assert frame.schema == {"a": pl.String, "b": pl.Float64}
    assert frame.height == 0
