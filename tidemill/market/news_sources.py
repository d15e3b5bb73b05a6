"""Every source of news by its name."""

from pathlib import Path

from tidemill.domain.errors import UnknownNameError
from tidemill.market.news import NewsSource
from tidemill.services import ServiceOptions

SOURCES = ("file:PATH", "feed:URL")


def open_news(spec: str, options: ServiceOptions | None = None) -> NewsSource:
    """The source named `file:PATH` or `feed:URL`. Close it when done.

    UnknownNameError for another name; a source raises its own errors for a bad path or address.
    """
    kind, _, place = spec.partition(":")
    if kind == "file" and place:
        from tidemill.market.news_files import NewsFile

        return NewsFile(Path(place).expanduser())
    if kind == "feed" and place:
        from tidemill.market.news_feeds import NewsFeed

        return NewsFeed(place, options=options)
    raise UnknownNameError("source of news", spec.partition("?")[0], SOURCES)
