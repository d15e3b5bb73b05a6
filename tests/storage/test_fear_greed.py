"""Versions of the index: the first is known a day after its stamp, another from its receipt, the same one never again."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tidemill.domain.errors import TidemillError
from tidemill.storage.fear_greed import read_fear_greed, write_fear_greed
from tidemill.storage.merge import Merged
from tidemill.storage.postgres import Database

FIRST = datetime(2024, 3, 1, tzinfo=UTC)
RECEIVED = datetime(2024, 3, 20, 9, tzinfo=UTC)


def values(*numbers: float) -> pl.DataFrame:
    stamps = [FIRST + timedelta(days=place) for place in range(len(numbers))]
    return pl.DataFrame({"stamp": stamps, "value": numbers}, schema={"stamp": pl.Datetime("us", "UTC"), "value": pl.Float64})


async def test_the_same_values_again_change_nothing_and_another_value_is_a_version(database: Database) -> None:
    assert await write_fear_greed(database, "s", values(10, 20), received_at=RECEIVED) == Merged(inserted=2)
    assert await write_fear_greed(database, "s", values(10, 20), received_at=RECEIVED) == Merged()
    assert await write_fear_greed(database, "s", values(10, 21, 30), received_at=RECEIVED) == Merged(inserted=2)
    found = await read_fear_greed(database, "s")
    assert found.select("stamp", "known_at", "value").rows() == [
        (FIRST, FIRST + timedelta(days=1), 10.0),
        (FIRST + timedelta(days=1), FIRST + timedelta(days=2), 20.0),
        (FIRST + timedelta(days=1), RECEIVED, 21.0),
        (FIRST + timedelta(days=2), FIRST + timedelta(days=3), 30.0),
    ]
    later = RECEIVED + timedelta(days=1)
    assert await write_fear_greed(database, "s", values(10, 20), received_at=later) == Merged(inserted=1), "it changed back"


async def test_sources_are_kept_apart(database: Database) -> None:
    await write_fear_greed(database, "a", values(10), received_at=RECEIVED)
    await write_fear_greed(database, "b", values(90), received_at=RECEIVED)
    assert (await read_fear_greed(database, "a"))["value"].to_list() == [10.0]
    assert (await read_fear_greed(database, "nobody")).is_empty()


@pytest.mark.parametrize("value", [-1.0, 101.0, float("nan"), float("inf")])
async def test_a_value_outside_of_the_index_is_refused_by_the_database(database: Database, value: float) -> None:
    with pytest.raises(TidemillError):
        await write_fear_greed(database, "s", values(value), received_at=RECEIVED)
    assert (await read_fear_greed(database, "s")).is_empty()
