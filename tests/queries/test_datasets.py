"""Which dataset holds a symbol, and what is missing."""

from datetime import timedelta

import polars as pl
import pytest

from tests.study.panels import START
from tidemill.domain.errors import AmbiguousNameError, InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.queries.datasets import StoredDataset, dataset_of, gaps_of, stored_datasets
from tidemill.storage.bars import BarStore
from tidemill.storage.postgres import Database

DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")


async def kept(database: Database, venue: str, interval: Interval, *symbols: str) -> None:
    """One bar of each symbol."""
    time = pl.Series([START] * len(symbols), dtype=pl.Datetime("us", "UTC"))
    prices = {name: [1.0] * len(symbols) for name in ("open", "high", "low", "close", "volume")}
    none = pl.Series([None] * len(symbols), dtype=pl.Float64)
    bars = pl.DataFrame({"symbol": symbols, "open_time": time, **prices, "quote_volume": none})
    await BarStore(database).write(venue, interval, bars.with_columns(known_at=pl.col("open_time") + interval.delta))


async def test_a_dataset_is_found_by_its_symbol_and_named_where_there_are_several(database: Database) -> None:
    with pytest.raises(UnknownNameError, match="There are no bars yet"):
        await dataset_of(database, "AAA", None, None)
    await kept(database, "one", DAY, "AAA", "BBB")
    await kept(database, "one", HOUR, "AAA")
    await kept(database, "two", DAY, "AAA")
    assert list(map(str, await stored_datasets(database))) == ["one 1d", "one 1h", "two 1d"]
    assert await dataset_of(database, "BBB", None, None) == StoredDataset("one", DAY)
    assert await dataset_of(database, "AAA", "one", HOUR) == StoredDataset("one", HOUR)
    with pytest.raises(AmbiguousNameError, match="one 1d, two 1d"):
        await dataset_of(database, "AAA", None, DAY)
    with pytest.raises(UnknownNameError, match=r"no dataset of BBB named 'two'.*one 1d"):
        await dataset_of(database, "BBB", "two", None)
    with pytest.raises(UnknownNameError, match="one 1d, one 1h, two 1d"):
        await dataset_of(database, "CCC", None, None)


async def test_gaps_are_those_of_the_datasets_asked_for_the_newest_first(database: Database) -> None:
    with pytest.raises(InputError, match="no bars yet"):
        await gaps_of(database)
    for venue, days in (("one", 1), ("two", 5)):
        await kept(database, venue, DAY, "AAA")
        start = START + timedelta(days=days)
        gap = pl.DataFrame({"symbol": ["AAA"], "start": [start], "end": [start + DAY.delta], "missing": [1]})
        await BarStore(database).write_gaps(venue, DAY, gap)
    found = await gaps_of(database)
    assert found["venue"].to_list() == ["two", "one"]
    assert found.columns == ["venue", "interval", "symbol", "start", "end", "missing"]
    assert (await gaps_of(database, venue="one"))["venue"].to_list() == ["one"]
    with pytest.raises(UnknownNameError, match="three 1d"):
        await gaps_of(database, venue="three", interval=DAY)
