"""The gate in front of Dagster's web UI.

The UI has no sign-in and accepts a cross-site POST as text/plain, so any website that a researcher opens could start runs. This
ASGI middleware wraps the UI in its own process: there is no port behind it that could be reached past it. It lets a request in
when its Host is one that we serve, its Origin (if any) is ours, and it carries a session cookie, which a single-use link gives.
"""

from collections.abc import Iterable
from html import escape
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidemill.access.passes import SESSION_SECONDS, Passes

# What a form of another site can send without asking first. The UI itself sends JSON.
_SIMPLE_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
_READING = ("GET", "HEAD")

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Tidemill</title>{head}
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem}}</style>
<h1>{title}</h1><p>{text}</p></html>"""


class Gate:
    """ASGI middleware around `app`, served on `port` of the loopback interface. `links`: (name, address) of what else runs."""

    def __init__(self, app: ASGIApp, passes: Passes, port: int, links: Iterable[tuple[str, str]] = ()) -> None:
        self._app, self._passes, self._links = app, passes, tuple(links)
        self._hosts = frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]"))
        self._origins = frozenset(f"http://{host}" for host in self._hosts)
        self._cookie = f"tidemill_session_{port}"  # a browser sends cookies to every port of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_frame_rule(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before accept: answered as 403
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer of the gate itself; None lets the request through."""
        headers = Headers(scope=scope)
        if headers.getlist("host") != [headers.get("host")] or headers["host"].lower() not in self._hosts:
            return _page(403, "Not this address", f"Use http://localhost:{self._port()}/ on the machine where Tidemill runs.")
        if self._is_foreign(scope, headers):
            return _page(
                403, "Not from another page", "Another website or page tried to use Tidemill's web UI. Nothing was done."
            )
        if scope["type"] == "http" and scope["path"] == "/signin":
            return self._sign_in(scope)
        if not self._has_session(scope):
            return self._stranger(headers)
        return None

    def _port(self) -> str:
        return self._cookie.rpartition("_")[2]

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Whether another page is behind this request. Fetch metadata is what browsers add that scripts cannot change."""
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            return True
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if scope["type"] == "websocket":
            return site not in ("none", "same-origin")
        if site not in ("none", "same-origin") and (mode != "navigate" or scope["method"] not in _READING):
            return True
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return scope["method"] not in _READING and kind in _SIMPLE_TYPES

    def _has_session(self, scope: Scope) -> bool:
        for header in Headers(scope=scope).getlist("cookie"):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == self._cookie and self._passes.session_is_valid(value):
                    return True
        return False

    def _sign_in(self, scope: Scope) -> Response:
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] != "GET" or not self._passes.take_link(token):
            return _page(
                401,
                "This link no longer signs in",
                "It was used, or is too old. Press Enter where scripts/up runs for a new one.",
            )
        others = "".join(f' or to <a href="{escape(address)}">{escape(name)}</a>' for name, address in self._links)
        # A page and not a redirect: after a click on another site, a strict cookie would not go along with the redirect.
        answer = _page(
            200, "Signed in", f'On to <a href="/">Dagster</a>{others}.', '<meta http-equiv="refresh" content="1;url=/">'
        )
        answer.set_cookie(self._cookie, self._passes.make("session"), max_age=SESSION_SECONDS, httponly=True, samesite="strict")
        return answer

    def _stranger(self, headers: Headers) -> Response:
        text = "Open the sign-in link that scripts/up printed. Press Enter where it runs for a new link."
        if "text/html" in headers.get("accept", ""):
            return _page(401, "Sign in first", text)
        return PlainTextResponse(f"{text}\n", 401, _NEVER_KEPT)


_NEVER_KEPT = {"cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}


def _page(status: int, title: str, text: str, head: str = "") -> HTMLResponse:
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    return HTMLResponse(
        _PAGE.format(title=title, text=text, head=head), status, {**_NEVER_KEPT, "content-security-policy": policy}
    )


def _with_frame_rule(send: Send) -> Send:
    """Answers of the UI, which no other site may put into a frame."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"x-frame-options", b"SAMEORIGIN")]
        await send(message)

    return wrapped
