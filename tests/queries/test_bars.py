"""Bars of a symbol and of a dataset, as a door asks for them."""

import asyncio
from datetime import timedelta

import pytest

from tests.queries.conftest import Meanwhile
from tests.study.panels import START
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS
from tidemill.queries.bars import BarSelection, bar_rows_of, bars_of, lake_bars
from tidemill.queries.datasets import StoredDataset
from tidemill.storage.lake import Lake
from tidemill.storage.postgres import Database

DAY = Interval.parse("1d")


@pytest.mark.finished
async def test_few_bars_many_bars_and_a_frame_are_the_same_bars(database: Database) -> None:
    few = await bar_rows_of(database, BarSelection(symbol="AAA", limit=400))
    whole = await bar_rows_of(database, BarSelection(symbol="AAA"))
    frame = await bars_of(database, BarSelection(symbol="AAA"))
    assert few == whole
    assert few.dataset == StoredDataset("panel", DAY)
    assert tuple(frame.columns) == BAR_COLUMNS
    assert [row.close for row in few.rows] == frame["close"].to_list()
    assert (len(few.rows), few.rows[0].open_time) == (328, START)


@pytest.mark.finished
async def test_the_newest_of_a_range_are_given(database: Database) -> None:
    end = START + timedelta(days=20)
    found = await bar_rows_of(database, BarSelection(symbol="AAA", end=end, limit=3))
    assert [row.open_time for row in found.rows] == [end - timedelta(days=days) for days in (3, 2, 1)]


@pytest.mark.finished
async def test_an_empty_range_says_which_there_is(database: Database) -> None:
    wanted = BarSelection(symbol="AAA", end=START, limit=5)
    for ask in (bar_rows_of, bars_of):
        with pytest.raises(InputError, match="It has bars from 2021-01-04 to 2021-11-27"):
            await ask(database, wanted)


@pytest.mark.finished
async def test_the_lake_has_the_bars_of_a_dataset_or_of_some_symbols(lake: Lake) -> None:
    assert (await lake_bars(lake, "panel", DAY)).height == 6 * 328
    chosen = await lake_bars(lake, "panel", DAY, ("BBB", "AAA"))
    assert chosen["symbol"].unique(maintain_order=True).to_list() == ["AAA", "BBB"]
    with pytest.raises(UnknownNameError, match=r"panel\.1d"):
        await lake_bars(lake, "pannel", DAY)
    with pytest.raises(UnknownNameError, match="ZZZ"):
        await lake_bars(lake, "panel", DAY, ("AAA", "ZZZ"))


@pytest.mark.finished
async def test_asked_at_once_postgres_and_the_lake_answer_as_alone(database: Database, lake: Lake) -> None:
    wanted = BarSelection(symbol="BBB", limit=5)
    alone = await bar_rows_of(database, wanted)
    rows, frame = await asyncio.gather(bar_rows_of(database, wanted), lake_bars(lake, "panel", DAY, ("BBB",)))
    assert rows == alone
    assert [row.close for row in rows.rows] == frame["close"].tail(5).to_list()


@pytest.mark.finished
async def test_the_loop_goes_on_while_the_lake_is_read(lake: Lake, meanwhile: Meanwhile) -> None:
    assert (await meanwhile(lake_bars(lake, "panel", DAY), Lake, "manifests")).height == 6 * 328
