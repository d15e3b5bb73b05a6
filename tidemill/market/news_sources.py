"""Every source of news by its name."""

from pathlib import Path

from tidemill.domain.errors import UnknownNameError
from tidemill.market.news import NewsSource
from tidemill.services import ServiceOptions

SOURCES = ("file:PATH", "feed:URL")


def require_source(spec: str) -> None:
    """UnknownNameError unless `spec` names a source of news. Nothing is opened."""
    kind, _, place = spec.partition(":")
    if kind not in ("file", "feed") or not place:
        raise UnknownNameError("source of news", spec.partition("?")[0], SOURCES)


def open_news(spec: str, options: ServiceOptions | None = None) -> NewsSource:
    """The source named `file:PATH` or `feed:URL`. Close it when done.

    UnknownNameError for another name; a source raises its own errors for a bad path or address.
    """
    require_source(spec)
    kind, _, place = spec.partition(":")
    if kind == "file":
        from tidemill.market.news_files import NewsFile

        return NewsFile(Path(place).expanduser())
    from tidemill.market.news_feeds import NewsFeed

    return NewsFeed(place, options=options)
