"""News in Postgres: when an item was first known stays, however often it comes again."""

from datetime import UTC, datetime, timedelta

import polars as pl

from tidemill.market.news import NewsItem, items_frame
from tidemill.storage.merge import Merged
from tidemill.storage.news import news_months, read_news, write_news
from tidemill.storage.postgres import Database

FIRST = datetime(2024, 3, 31, 23, tzinfo=UTC)


def item(item_id: str, known_at: datetime, source: str = "s", published_at: datetime | None = FIRST) -> NewsItem:
    return NewsItem(
        source=source,
        item_id=item_id,
        known_at=known_at,
        published_at=published_at,
        vintage_known=True,
        symbols="A B",
        tags="",
        headline=f"Headline {item_id}; it’s “odd”",
        body="",
        publisher="wire",
        url="",
    )


def at(hours: int) -> datetime:
    return FIRST + timedelta(hours=hours)


async def test_items_come_back_as_they_were_stored_by_the_time_at_which_they_were_known(database: Database) -> None:
    frame = items_frame([item("b", at(2)), item("a", at(0), published_at=None)])
    assert await write_news(database, frame) == Merged(inserted=2)
    found = await read_news(database, "s")
    assert found["item_id"].to_list() == ["a", "b"]
    assert found.equals(frame.select(found.columns))


async def test_the_first_receipt_stays_when_an_item_comes_again(database: Database) -> None:
    await write_news(database, items_frame([item("a", at(0))]))
    assert await write_news(database, items_frame([item("a", at(9)), item("b", at(9))])) == Merged(inserted=1, unchanged=1)
    assert (await read_news(database, "s")).select("item_id", "known_at").rows() == [("a", at(0)), ("b", at(9))]


async def test_sources_and_months_stay_apart(database: Database) -> None:
    await write_news(database, items_frame([item("a", at(0)), item("b", at(1)), item("a", at(0), source="t")]))
    assert await news_months(database, "s") == {"2024-03": 1, "2024-04": 1}
    assert (await read_news(database, "s", start=at(1)))["item_id"].to_list() == ["b"]
    assert (await read_news(database, "s", end=at(1)))["item_id"].to_list() == ["a"]
    assert (await read_news(database, "u")).is_empty()
    assert (await read_news(database, "u")).schema["known_at"] == pl.Datetime("us", "UTC")
