"""News from a feed: RSS, Atom or JSON over HTTP, through the bounded and retried client of `tidemill.services`.

XML is read by expat with document types and entities refused, so that a feed can neither expand into gigabytes nor read a file.
What a feed says of its own dates is kept, but an item counts from its receipt here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.parsers import expat  # document types and entities are refused below  # nosec B407

import msgspec

from tidemill.domain.errors import InputError, MalformedError
from tidemill.domain.market import slug
from tidemill.market.news import RawNews
from tidemill.market.news_files import columns_of, raw_news
from tidemill.provenance import fingerprint
from tidemill.services import Clock, Service, ServiceHealth, ServiceOptions

MAXIMUM_BYTES = 16 << 20
MAXIMUM_ITEMS = 10_000
_MAXIMUM_DEPTH = 64
_ACCEPT = "application/rss+xml, application/atom+xml, application/xml, application/json, text/xml;q=0.9, */*;q=0.1"
_LISTS = ("items", "articles", "news", "results", "data", "stories")
# Element of RSS 2.0, RSS 1.0 and Atom → field, by local name; where an item has two of one field, the first counts.
_ELEMENTS = {
    "title": "headline", "description": "body", "summary": "body", "content": "body", "encoded": "body", "pubdate": "published",
    "date": "published", "published": "published", "updated": "published", "guid": "id", "id": "id", "link": "url",
    "source": "publisher", "category": "tags",
}  # fmt: skip


class NewsFeed:
    """A `NewsSource` over the feed at `address`, an http or https URL. InputError for another address.

    A key in the query of the address is sent and never shown: errors and names hold the host only.
    """

    def __init__(self, address: str, *, options: ServiceOptions | None = None, clock: Clock | None = None) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InputError("The address of a news feed must be an http or https URL without a user name. Correct it.")
        self._host, self._path = parts.hostname, parts.path or "/"
        self._params = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._address = address
        bounds = msgspec.structs.replace(options or ServiceOptions(), max_body=MAXIMUM_BYTES)
        base = f"{parts.scheme}://{parts.netloc}"
        self._service = Service("the news feed", base, options=bounds, clock=clock, headers={"Accept": _ACCEPT})

    @property
    def name(self) -> str:
        return f"feed.{slug(self._host)[:40]}-{fingerprint(self._address)[:8]}"

    @property
    def origin(self) -> str:
        return self._host

    async def batches(self) -> AsyncIterator[tuple[list[RawNews], datetime | None]]:
        """What the feed holds now, received now. Raises the errors of `Service.get`; MalformedError for what is no feed."""
        reply = await self._service.get(self._path, _DECODER, params=self._params)
        yield reply.value, self._service.clock.now()

    def health(self) -> ServiceHealth:
        return self._service.health()

    async def close(self) -> None:
        await self._service.close()


class _FeedDecoder:
    """Reads a body as `Service.get` wants it read."""

    def decode(self, body: bytes) -> list[RawNews]:
        return parse_feed(body)


_DECODER = _FeedDecoder()


def parse_feed(body: bytes) -> list[RawNews]:
    """The items of an RSS, Atom or JSON feed, in its order. MalformedError for anything else."""
    start = body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    rows = _json_feed(body) if start[:1] in (b"{", b"[") else _xml_feed(body)
    if len(rows) > MAXIMUM_ITEMS:
        raise MalformedError(f"The news feed holds more than {MAXIMUM_ITEMS:,} items at once. Ask it for fewer.")
    return rows


def _json_feed(body: bytes) -> list[RawNews]:
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedError("The news feed sent something that is neither JSON nor XML.") from exc
    if isinstance(found, dict):
        found = next((found[name] for name in _LISTS if isinstance(found.get(name), list)), None)
    if not isinstance(found, list):
        raise MalformedError("The news feed sent JSON without a list of items.")
    return [
        raw_news(number, record, columns_of(map(str, record))) if isinstance(record, dict) else RawNews(line=number)
        for number, record in enumerate(found, start=1)
    ]


def _xml_feed(body: bytes) -> list[RawNews]:
    reader = _FeedReader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = _refuse_document_type
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(body, True)
    except expat.ExpatError as exc:
        raise MalformedError(f"The news feed sent XML that cannot be read (line {exc.lineno}).") from exc
    except (LookupError, ValueError) as exc:  # an encoding that nobody knows
        raise MalformedError("The news feed sent XML in an unknown encoding.") from exc
    if not reader.is_feed:
        raise MalformedError("The news feed sent XML that is neither RSS nor Atom.")
    return reader.rows


def _refuse_document_type(*_: object) -> int:
    raise MalformedError("The news feed sent XML with a document type or entities, which are refused for safety.")


class _FeedReader:
    """Collects items while expat walks the document."""

    def __init__(self) -> None:
        self.rows: list[RawNews] = []
        self.is_feed = False
        self._depth = 0
        self._item: dict[str, list[str]] | None = None
        self._item_depth = 0
        self._field = ""
        self._parts: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAXIMUM_DEPTH:
            raise MalformedError(f"The news feed sent XML nested deeper than {_MAXIMUM_DEPTH} levels.")
        local = name.rpartition(" ")[2].lower()
        self.is_feed = self.is_feed or local in ("rss", "feed", "rdf")
        if local in ("item", "entry") and self._item is None:
            self._item, self._item_depth = {}, self._depth
        elif self._item is not None and self._depth == self._item_depth + 1:
            self._field, self._parts = _ELEMENTS.get(local, ""), []
            for attribute in ("href", "term"):  # Atom's links and categories
                self._parts += [attributes[attribute]] if attribute in attributes else []

    def text(self, data: str) -> None:
        if self._field:
            self._parts.append(data)

    def end(self, name: str) -> None:
        if self._item is not None and self._depth == self._item_depth + 1 and self._field:
            text = "".join(self._parts).strip()
            if text:
                self._item.setdefault(self._field, []).append(text)
            self._field = ""
        elif self._item is not None and self._depth == self._item_depth:
            self._close(self._item)
        self._depth -= 1

    def _close(self, item: dict[str, list[str]]) -> None:
        if len(self.rows) > MAXIMUM_ITEMS:
            raise MalformedError(f"The news feed holds more than {MAXIMUM_ITEMS:,} items at once. Ask it for fewer.")
        tags = " ".join(item.pop("tags", []))
        fields = {field: texts[0] for field, texts in item.items()}
        self.rows.append(RawNews(line=len(self.rows) + 1, tags=tags, **fields))
        self._item = None
