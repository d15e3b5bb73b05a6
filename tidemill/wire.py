"""What comes over HTTP, made safe: bounded bodies, strict decoding, headers, and httpx's errors in our own tree.

Nothing here names the path or query of a request: a URL may hold a key.
"""

import logging
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from tidemill.domain.errors import (
    ConfigError,
    DeadlineError,
    MalformedError,
    RateLimitedError,
    RefusedError,
    TidemillError,
    UnavailableError,
)

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Read = TypeVar("Read", covariant=True)

# gzip and zlib, told apart by their header.
_INFLATE_ANY = zlib.MAX_WBITS | 32
_SHOWN = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Decoder(Protocol[Read]):
    """Reads a body: `msgspec.json.Decoder`, or one of one's own that raises MalformedError."""

    def decode(self, body: bytes, /) -> Read: ...


class BrokenAnswerError(MalformedError):
    """The body is not even JSON: most often cut off or a proxy's page, so another try may do."""


@cache
def error_meanings() -> Mapping[type[Exception], tuple[type[TidemillError], str]]:
    """Each exception class of httpx, the error of our tree it becomes, and what to say after the service's name."""
    import httpx

    slow = "did not answer in time. Try again later or raise http_timeout."
    cut = "cut the connection. Try again later."
    address = "cannot be asked: its address or a header is wrong. Correct the address of the service."
    own = "was closed while its answer was being read. Try again."
    return {
        httpx.TimeoutException: (DeadlineError, slow),
        httpx.ReadTimeout: (DeadlineError, slow),
        httpx.WriteTimeout: (DeadlineError, slow),
        httpx.ConnectTimeout: (UnavailableError, "could not be reached in time. Check the network or try again later."),
        httpx.PoolTimeout: (UnavailableError, "has no free connection. Lower the concurrency or try again later."),
        httpx.ConnectError: (UnavailableError, "cannot be reached. Check the network or try again later."),
        httpx.ProxyError: (UnavailableError, "cannot be reached through the proxy. Check the proxy."),
        httpx.NetworkError: (UnavailableError, cut),
        httpx.ReadError: (UnavailableError, cut),
        httpx.WriteError: (UnavailableError, cut),
        httpx.CloseError: (UnavailableError, cut),
        httpx.RemoteProtocolError: (UnavailableError, cut),
        httpx.ProtocolError: (UnavailableError, cut),
        httpx.TransportError: (UnavailableError, cut),
        httpx.RequestError: (UnavailableError, cut),
        httpx.HTTPError: (UnavailableError, cut),
        httpx.HTTPStatusError: (UnavailableError, "answered with an error. Try again later."),
        httpx.DecodingError: (MalformedError, "sent a body that cannot be unpacked."),
        httpx.LocalProtocolError: (ConfigError, address),
        httpx.UnsupportedProtocol: (ConfigError, address),
        httpx.InvalidURL: (ConfigError, address),
        httpx.CookieConflict: (ConfigError, address),
        httpx.TooManyRedirects: (ConfigError, "redirects in a circle. Correct the address of the service."),
        httpx.StreamError: (UnavailableError, own),
        httpx.StreamConsumed: (UnavailableError, own),
        httpx.StreamClosed: (UnavailableError, own),
        httpx.ResponseNotRead: (UnavailableError, own),
        httpx.RequestNotRead: (UnavailableError, own),
    }


def http_error(exc: Exception, who: str) -> TidemillError:
    """The error of our tree for an exception of httpx; raise it `from exc`."""
    meanings = error_meanings()
    for kind in type(exc).__mro__:
        if kind in meanings:
            made, text = meanings[kind]
            return made(f"{who} {text}")
    return UnavailableError(f"{who} could not be asked ({type(exc).__name__}). Try again later.")


def status_error(status: int, headers: Mapping[str, str], body: bytes, who: str, now: datetime) -> TidemillError | None:
    """The error that an HTTP status means; None for 2xx. 418 is how Binance bans an address that ignored 429."""
    if 200 <= status < 300:
        return None
    wait = retry_after(headers, now)
    asked = "" if wait is None else f" for {wait:.0f} s"
    if status == 418:
        return RateLimitedError(f"{who} has banned this address{asked}. Wait that long before asking again.", wait)
    if status == 429:
        return RateLimitedError(f"{who} asks to wait{asked}. Ask for fewer symbols at once or try again later.", wait)
    if status >= 500 or status in (408, 425):
        return UnavailableError(f"{who} answered with status {status}. Try again later.")
    if 300 <= status < 400:
        return ConfigError(f"{who} redirects elsewhere (status {status}). Correct the address of the service.")
    detail = printable(body)
    said = f": {detail}" if detail else ""
    return RefusedError(f"{who} refuses the request with status {status}{said}.", status, detail)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date), at least 0; None without a readable one."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text)
    moment = http_date(text)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def http_date(text: str) -> datetime | None:
    """The moment that a Date header names, timezone-aware; None when it cannot be read."""
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def printable(body: bytes) -> str:
    """The first characters of a body as one line of text, fit for an error message."""
    text = body[: 4 * _SHOWN].decode("utf-8", "replace")
    return _CONTROL.sub(" ", text).strip()[:_SHOWN].rstrip(". ")


async def read_body(response: "httpx.Response", limit: int, who: str) -> bytes:
    """The body, unpacked, never more than `limit` bytes in memory, whatever it claims and however it was compressed.

    Raises MalformedError for a larger one and for an unknown packing, UnavailableError when it ends early.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise MalformedError(f"{who} sent a body packed as {packing[:20]!r}, which was not asked for.")
    unpack = zlib.decompressobj(_INFLATE_ANY) if packing not in ("identity", "") else None
    body = bytearray()
    # httpx would unpack a chunk whole, and 64 KiB of zeros become 64 MiB: so raw chunks, unpacked up to the limit.
    async for chunk in response.aiter_raw():
        try:
            body += chunk if unpack is None else unpack.decompress(chunk, limit - len(body) + 1)
        except zlib.error as exc:
            raise BrokenAnswerError(f"{who} sent a body that cannot be unpacked.") from exc
        if len(body) > limit:
            raise MalformedError(f"{who} sent more than {limit:,} bytes for one request. Ask for less at once.")
        if unpack is not None and unpack.unused_data:
            raise BrokenAnswerError(f"{who} sent something after the end of its packed body.")
    if unpack is not None and body and not unpack.eof:
        raise UnavailableError(f"{who} cut off its answer. Try again later.")
    return bytes(body)


def decode(decoder: Decoder[T], body: bytes, who: str) -> T:
    """`body` as the decoder's type. BrokenAnswerError where it is not JSON, MalformedError for other shapes or values."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise MalformedError(f"{who} sent an answer that its own API rules out: {str(exc)[:_SHOWN]}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BrokenAnswerError(f"{who} sent an answer that is not JSON. Try again later.") from exc


def keep_addresses_out_of_logs() -> None:
    """httpx logs whole addresses at INFO and httpcore headers at DEBUG, keys and all: quiet, unless a person set a level."""
    for name in ("httpx", "httpcore"):
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(logging.WARNING)
