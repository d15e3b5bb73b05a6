"""News items as rows: what they are made of, which are rejected and why, and which symbols they are about.

`known_at` is what counts (NUMBERS, Time): the receipt where it is recorded, never before the publication. History that comes
without a receipt takes its publication time, marked vintage-unknown; a bare date counts from the end of its day. An item that
was changed by its publisher is another item, known from its own receipt.
"""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import EPOCH
from tidemill.domain.market import QuarantineReason, valid_symbol
from tidemill.provenance import fingerprint

if TYPE_CHECKING:
    import polars as pl

HEADLINE_LENGTH, BODY_LENGTH, SHORT_LENGTH = 500, 4_000, 300
_TAG = re.compile(r"<[^<>]{0,2000}>")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_SEPARATORS = re.compile(r"[\s,;|]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{4}/\d{2}/\d{2}|\d{8}")
_NUMBER = re.compile(r"\d{9,19}(\.\d+)?")
# $AAPL, and (NASDAQ: AAPL) or (NYSE:BRK.B).
_CASHTAG = re.compile(r"(?<![\w$])\$([A-Za-z][A-Za-z0-9.\-]{0,14})")
_LISTING = re.compile(r"\(\s*[A-Za-z]{2,12}\s*:\s*([A-Za-z0-9.\-]{1,15})\s*\)")
_MILLISECONDS_FROM, _MICROSECONDS_FROM = 1e11, 1e14


class RawNews(msgspec.Struct, frozen=True, kw_only=True):
    """An item as its source gives it, every field text. line: 1-based place there. id: the publisher's, where it has one.

    symbols: those that the source says it is about. tags: words that may be symbols.
    """

    line: int
    headline: str = ""
    body: str = ""
    published: str = ""
    received: str = ""
    symbols: str = ""
    tags: str = ""
    publisher: str = ""
    url: str = ""
    id: str = ""


class NewsItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that can be trusted. vintage_known: whether `known_at` is a receipt. symbols, tags: with blanks between them."""

    source: str
    item_id: str
    known_at: datetime
    published_at: datetime | None
    vintage_known: bool
    symbols: str
    tags: str
    headline: str
    body: str
    publisher: str
    url: str


class RejectedNews(msgspec.Struct, frozen=True, kw_only=True):
    """A row that did not become an item, as the quarantine keeps it."""

    line: int
    reason: QuarantineReason
    detail: str
    symbol: str = ""


class NewsSource(Protocol):
    """Where news comes from. `name`: the key under which its items are kept; `origin`: how the quarantine names it."""

    @property
    def name(self) -> str: ...

    @property
    def origin(self) -> str: ...

    def batches(self) -> AsyncIterator[tuple[list[RawNews], datetime | None]]:
        """Rows in bounded batches, and the time of their receipt; None where each row has its own."""
        ...

    async def close(self) -> None: ...


def judged(
    rows: Iterable[RawNews], source: str, *, now: datetime, receipt: datetime | None
) -> tuple[list[NewsItem], list[RejectedNews]]:
    """Items, each once and with its earliest `known_at`, and the rows that are rejected with their reasons.

    receipt: when all rows were received; None where each row says so or nobody knows.
    """
    items: dict[str, NewsItem] = {}
    rejected: list[RejectedNews] = []
    for row in rows:
        try:
            item = _item(row, source, now, receipt)
        except _RejectedError as exc:
            detail = _clean(exc.detail, SHORT_LENGTH)
            rejected.append(RejectedNews(line=row.line, reason=exc.reason, detail=detail, symbol=_clean(row.symbols, 32)))
            continue
        held = items.get(item.item_id)
        if held is None or item.known_at < held.known_at:
            items[item.item_id] = item
    return list(items.values()), rejected


class _RejectedError(Exception):
    def __init__(self, reason: QuarantineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def _item(row: RawNews, source: str, now: datetime, receipt: datetime | None) -> NewsItem:
    headline, body = _clean(row.headline, HEADLINE_LENGTH), _clean(row.body, BODY_LENGTH)
    if not headline and not body:
        raise _RejectedError(QuarantineReason.NULL, "neither a headline nor a body")
    symbols = _symbols(row.symbols)
    published, known_at, vintage_known = _times(row, now, receipt)
    identity = (row.id,) if row.id else (published,)
    return NewsItem(
        source=source,
        item_id=fingerprint(identity, headline, body, symbols),
        known_at=known_at,
        published_at=published,
        vintage_known=vintage_known,
        symbols=symbols,
        tags=_clean(row.tags, BODY_LENGTH),
        headline=headline,
        body=body,
        publisher=_clean(row.publisher, SHORT_LENGTH),
        url=_clean(row.url, 4 * SHORT_LENGTH),
    )


def _times(row: RawNews, now: datetime, receipt: datetime | None) -> tuple[datetime | None, datetime, bool]:
    """(published_at, known_at, whether known_at is a receipt)."""
    if receipt is not None:
        return _time_or_none(row.published), receipt, True
    published = _read_time(row.published, "published", end_of_day=False)
    received = _read_time(row.received, "received", end_of_day=True)
    # A bare date is over before anybody can be sure to have known what was published on it.
    public = _read_time(row.published, "published", end_of_day=True)
    times = [time for time in (received, public if received is None else published) if time is not None]
    if not times:
        raise _RejectedError(QuarantineReason.NULL, "neither a time of publication nor one of receipt")
    if max(times) > now:
        raise _RejectedError(QuarantineReason.FUTURE, f"known at {max(times).isoformat()}, which has not come yet")
    return published, max(times), received is not None


def _time_or_none(text: str) -> datetime | None:
    """For what has a receipt: when it was published, or None when that cannot be read. Nothing depends on it."""
    try:
        return _read_time(text, "published", end_of_day=False)
    except _RejectedError:
        return None


def _read_time(text: str, name: str, *, end_of_day: bool) -> datetime | None:
    """A time in UTC, to the microsecond; None for an empty text. A time without a zone is UTC."""
    given = text.strip()
    if not given:
        return None
    try:
        moment = _moment(given)
        if end_of_day and _DATE.fullmatch(given):
            moment += timedelta(days=1)
    except (ValueError, TypeError, OverflowError, IndexError) as exc:
        raise _RejectedError(QuarantineReason.UNREADABLE, f"{name}: {given[:80]!r} is not a time") from exc
    return moment


def _moment(text: str) -> datetime:
    if _DATE.fullmatch(text):
        return datetime.strptime(re.sub(r"\D", "", text), "%Y%m%d").replace(tzinfo=UTC)
    if _NUMBER.fullmatch(text):
        number = float(text)
        scale = 1.0 if number < _MILLISECONDS_FROM else 1e3 if number < _MICROSECONDS_FROM else 1e6
        return EPOCH + timedelta(seconds=number / scale)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = parsedate_to_datetime(text)  # as feeds write it: Tue, 05 Mar 2024 14:00:00 GMT
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _symbols(text: str) -> str:
    """The symbols of a cell, each once, sorted, with a blank between them."""
    given = sorted({part for part in _SEPARATORS.split(text.strip(" \t\r\n[]()'\"").replace("'", "").replace('"', "")) if part})
    for symbol in given:
        try:
            valid_symbol(symbol)
        except InputError as exc:
            raise _RejectedError(QuarantineReason.BAD_SYMBOL, str(exc)) from exc
    return " ".join(given)


def _clean(text: str, length: int) -> str:
    """One line of plain text of at most `length` characters: no markup, no control characters, nothing that is not UTF-8."""
    whole = html.unescape(_TAG.sub(" ", text[: 8 * length]))
    return _BLANK.sub(" ", whole.encode("utf-8", "replace").decode("utf-8")).strip()[:length].rstrip()


def items_frame(items: Sequence[NewsItem]) -> pl.DataFrame:
    """One row for each item, sorted by known_at and item_id."""
    import polars as pl

    time = pl.Datetime("us", "UTC")
    schema = dict.fromkeys(NewsItem.__struct_fields__, pl.String()) | {
        "known_at": time, "published_at": time, "vintage_known": pl.Boolean()
    }  # fmt: skip
    rows = [msgspec.structs.astuple(item) for item in items]
    return pl.DataFrame(rows, schema=schema, orient="row").sort("known_at", "item_id")


class Mentions:
    """Which symbols of a universe a text is about, where its source does not say so.

    A symbol counts where it stands as $SYM, as (EXCHANGE: SYM), as a tag, or under one of its names; aliases: symbol → names,
    looked for as whole words, in any case.
    """

    def __init__(self, universe: Iterable[str], aliases: Mapping[str, Sequence[str]]) -> None:
        self._by_name = {symbol.upper(): symbol for symbol in universe}
        names = {name.lower(): symbol for symbol, given in aliases.items() for name in given if name.strip()}
        self._named = {name: symbol for name, symbol in names.items() if symbol.upper() in self._by_name}
        longest_first = sorted(map(re.escape, self._named), key=len, reverse=True)
        self._names = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)") if longest_first else None

    def symbols(self, stated: str, tags: str, text: str) -> list[str]:
        """Sorted symbols of the universe; what the source states decides, whatever else the text mentions."""
        if stated:
            return sorted({self._by_name[name] for name in stated.upper().split() if name in self._by_name})
        candidates = {*tags.split(), *_CASHTAG.findall(text), *_LISTING.findall(text)}
        found = {self._by_name[name] for name in (one.upper().rstrip(".-") for one in candidates) if name in self._by_name}
        if self._names is not None:
            found |= {self._named[name] for name in self._names.findall(text.lower())}
        return sorted(found)
