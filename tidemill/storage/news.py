"""News items in Postgres. An item that is there already stays as it was first known."""

from datetime import datetime

import polars as pl

from tidemill.storage.merge import Merged, Table, copy_merge, read_frame
from tidemill.storage.postgres import Database

NEWS = Table(
    "news",
    {
        **dict.fromkeys(("source", "item_id"), "text"),
        **dict.fromkeys(("known_at", "published_at"), "timestamptz"),
        "vintage_known": "bool",
        **dict.fromkeys(("symbols", "tags", "headline", "body", "publisher", "url"), "text"),
    },
    key=("source", "item_id"),
    first_stays=True,
)
_READ = f"""
SELECT {", ".join(NEWS.kinds)} FROM news
WHERE source = $1 AND ($2::timestamptz IS NULL OR known_at >= $2) AND ($3::timestamptz IS NULL OR known_at < $3)
ORDER BY known_at, item_id
"""  # nosec B608  # column names of the table above
_COUNT_BY_MONTH = """
SELECT to_char(known_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*) AS items FROM news WHERE source = $1 GROUP BY 1
"""


async def write_news(database: Database, items: pl.DataFrame) -> Merged:
    """Store `items`, the columns of NEWS; those that are there already change nothing."""
    return await copy_merge(database, NEWS, items)


async def read_news(
    database: Database, source: str, *, start: datetime | None = None, end: datetime | None = None
) -> pl.DataFrame:
    """The items of a source by known_at and item_id; start ≤ known_at < end."""
    return await read_frame(database, NEWS.kinds, _READ, source, start, end)


async def news_months(database: Database, source: str) -> dict[str, int]:
    """Month (`2024-03`) of known_at → number of items."""
    return {row["month"]: int(row["items"]) for row in await database.fetch(_COUNT_BY_MONTH, source)}
