"""Feeds: RSS, Atom and JSON from a real server on this machine, and what a feed must not be able to do."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tests import http_server as fault
from tests.http_server import IMPATIENT, Answer, LoopbackServer, Request, VirtualClock
from tidemill.domain.errors import InputError, MalformedError, RateLimitedError, RefusedError, TidemillError, UnavailableError
from tidemill.market.news import judged
from tidemill.market.news_feeds import MAXIMUM_ITEMS, NewsFeed, parse_feed

NOW = datetime(2024, 9, 8, 12, 0, 30, tzinfo=UTC)
RSS = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:content="http://purl.org/rss/1.0/modules/content/">
<channel><title>The channel</title><link>https://news.example/</link>
 <item><title>Caf\xe9 chain <![CDATA[& partners]]> rise</title><link>https://news.example/1</link><guid>g1</guid>
  <description>&lt;p&gt;Up &lt;b&gt;5 %&lt;/b&gt;&lt;/p&gt;</description><pubDate>Sun, 08 Sep 2024 09:00:00 GMT</pubDate>
  <category>AAPL</category><category>markets</category></item>
 <item><title>Second</title><content:encoded>Body</content:encoded><dc:date>2024-09-08T10:00:00Z</dc:date></item>
</channel></rss>"""
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><title>The feed</title><updated>2024-09-08T10:00:00Z</updated>
 <entry><id>urn:1</id><title type="text">First</title><link href="https://news.example/a" rel="alternate"/>
  <published>2024-09-08T09:00:00Z</published><category term="MSFT"/><author><name>A. Writer</name></author>
  <content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">A <em>b</em> c</div></content></entry></feed>"""
JSON = b"""{"version": "https://jsonfeed.org/version/1.1", "title": "T", "items": [
 {"id": "1", "title": "One", "content_text": "Text", "date_published": "2024-09-08T09:00:00Z", "tags": ["AAPL", "x"]}, 7]}"""


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(lambda request: Answer(body=RSS)) as running:
        yield running


async def fetched(server: LoopbackServer, path: str = "/feed.xml") -> list[str]:
    feed = NewsFeed(server.url + path, options=IMPATIENT, clock=VirtualClock(NOW))
    try:
        return [row.headline async for rows, _ in feed.batches() for row in rows]
    finally:
        await feed.close()


def test_rss_is_read_with_its_encoding_markup_and_extensions() -> None:
    first, second = parse_feed(RSS)
    assert (first.id, first.url, first.published) == ("g1", "https://news.example/1", "Sun, 08 Sep 2024 09:00:00 GMT")
    assert (second.body, second.published) == ("Body", "2024-09-08T10:00:00Z")
    items, refused = judged([first], "s", now=NOW, receipt=NOW)
    assert refused == []
    assert (items[0].headline, items[0].body, items[0].tags) == ("Café chain & partners rise", "Up 5 %", "AAPL markets")


def test_atom_is_read_with_its_links_categories_and_inline_markup() -> None:
    (entry,) = parse_feed(ATOM)
    assert (entry.id, entry.headline, entry.body, entry.url) == ("urn:1", "First", "A b c", "https://news.example/a")
    assert (entry.tags, entry.published) == ("MSFT", "2024-09-08T09:00:00Z")


def test_json_is_read_as_a_list_or_under_a_usual_name_and_what_is_no_item_keeps_its_place() -> None:
    first, second = parse_feed(JSON)
    assert (first.headline, first.body, first.tags, first.id) == ("One", "Text", "AAPL x", "1")
    assert (second.line, second.headline) == (2, "")
    assert parse_feed(b'[{"headline": "H", "symbols": ["A"], "datetime": 1725786000}]')[0].symbols == "A"
    assert parse_feed(b'{"articles": []}') == []


async def test_what_is_fetched_is_known_at_the_moment_of_receipt(server: LoopbackServer) -> None:
    clock = VirtualClock(NOW)
    feed = NewsFeed(f"{server.url}/feed.xml?key=secret&n=5", options=IMPATIENT, clock=clock)
    batches = [batch async for batch in feed.batches()]
    await feed.close()
    assert [(len(rows), receipt) for rows, receipt in batches] == [(2, NOW)]
    assert (server.requests[0].path, server.requests[0].params) == ("/feed.xml", {"key": "secret", "n": "5"})
    assert "xml" in server.requests[0].headers["accept"]
    assert "secret" not in feed.name + feed.origin


async def test_faults_that_pass_are_retried(server: LoopbackServer) -> None:
    server.misbehave(fault.status(503), fault.reset, fault.cut_off)
    assert len(await fetched(server)) == 2
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (fault.status(404), RefusedError),
        (fault.status(401), RefusedError),
        (fault.status(429, retry_after="3600"), RateLimitedError),
        (fault.status(500), UnavailableError),
        (fault.reset, UnavailableError),
        (fault.endless, MalformedError),
        (fault.gzip_bomb, MalformedError),
        (fault.web_page, MalformedError),
        (fault.broken_json, MalformedError),
    ],
)
async def test_a_feed_that_fails_says_why_without_its_address(
    server: LoopbackServer, spoil: fault.Fault, error: type[TidemillError]
) -> None:
    server.always(spoil)
    with pytest.raises(error) as caught:
        await fetched(server, "/feed.xml?key=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE rss [<!ENTITY a "b">]><rss><channel/></rss>',
        b'<!DOCTYPE rss SYSTEM "file:///etc/passwd"><rss/>',
        b'<!DOCTYPE l [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;">]><rss><item><title>&m;</title></item></rss>',
        "<!DOCTYPE rss><rss/>".encode("utf-16"),
    ],
)
def test_document_types_and_entities_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedError, match="document type"):
        parse_feed(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "cannot be read"),
        (b"<rss><item></rss>", "cannot be read"),
        (b"<html><body>no feed</body></html>", "neither RSS nor Atom"),
        (b'<?xml version="1.0" encoding="klingon"?><rss/>', "cannot be read|encoding"),
        (b"<rss>" * 70 + b"</rss>" * 70, "nested deeper"),
        (b"{", "neither JSON nor XML"),
        (b'{"status": "ok"}', "without a list"),
        (b"[" * 5_000, "neither JSON nor XML"),
        (b"<rss>" + b"<item/>" * (MAXIMUM_ITEMS + 2) + b"</rss>", "more than"),
        (b"[" + b"{}," * (MAXIMUM_ITEMS + 2) + b"{}]", "more than"),
    ],
)
def test_what_is_no_feed_is_malformed(body: bytes, text: str) -> None:
    with pytest.raises(MalformedError, match=text):
        parse_feed(body)


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://news.example/", "news.example/feed", "https://u:p@news.example/"]
)
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="http or https"):
        NewsFeed(address)


async def test_a_redirect_is_not_followed(server: LoopbackServer) -> None:
    def respond(request: Request) -> Answer:
        return Answer(b"", 302, {"location": "http://127.0.0.1:1/"})

    async with LoopbackServer(respond) as elsewhere:
        with pytest.raises(TidemillError, match="redirects"):
            await fetched(elsewhere)
