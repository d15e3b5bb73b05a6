"""The gate on a real server, asked with real requests."""

import asyncio
import http.client
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
import websockets.sync.client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus

from orchestration.gate import Gate
from orchestration.up import free_port
from tidemill.access.passes import LINK_SECONDS, SESSION_SECONDS, Passes

KEY = b"k" * 32


class Inside:
    """What stands behind the gate, and counts who got through."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def page(self, request: Request) -> PlainTextResponse:
        self.requests.append(f"{request.method} {request.url.path}")
        return PlainTextResponse("inside")

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept(subprotocol="graphql-ws")
        await socket.send_text("inside")
        await socket.close()

    def app(self) -> Starlette:
        routes = [WebSocketRoute("/graphql", self.socket), Route("/{path:path}", self.page, methods=["GET", "POST"])]
        return Starlette(routes=routes)


class Served:
    """The gate on a port of its own."""

    def __init__(self, port: int, passes: Passes, inside: Inside) -> None:
        self.port, self.passes, self.inside = port, passes, inside

    def ask(self, method: str = "GET", path: str = "/", body: str = "", **headers: str) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers; `Host` as a browser would send it unless given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in sent)
        for name, value in sent.items():
            connection.putheader(name, value)
        if method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() if body else None)
        answer = connection.getresponse()
        got = answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return got

    def cookie(self) -> str:
        """What a browser that opened a fresh link sends from then on."""
        _, _, headers = self.ask(path=f"/signin?token={self.passes.make('link')}")
        return headers["set-cookie"].partition(";")[0]


@pytest.fixture
def served() -> Iterator[Served]:
    inside, port = Inside(), free_port(23_000)
    passes = Passes(KEY)
    gate = Gate(inside.app(), passes, port, [("Jupyter<Lab>", "http://127.0.0.1:8888/lab?token=a&b")])
    server = uvicorn.Server(uvicorn.Config(gate, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield Served(port, passes, inside)
    server.should_exit = True
    thread.join()


def test_a_stranger_gets_nothing_but_what_to_do(served: Served) -> None:
    status, body, _ = served.ask(Accept="text/html")
    assert status == 401
    assert "sign-in link" in body
    assert served.ask(path="/graphql", Accept="application/json")[0] == 401
    assert served.inside.requests == []


def test_a_link_signs_in_once_with_a_cookie_that_scripts_and_other_sites_cannot_use(served: Served) -> None:
    link = f"/signin?token={served.passes.make('link')}"
    status, body, headers = served.ask(path=link, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert status == 200
    assert "httponly" in headers["set-cookie"].lower()
    assert "samesite=strict" in headers["set-cookie"].lower()
    assert "Jupyter&lt;Lab&gt;" in body
    assert served.ask(path=link)[0] == 401
    cookie = headers["set-cookie"].partition(";")[0]
    status, body, headers = served.ask(Cookie=f"other=1; {cookie}")
    assert (status, body) == (200, "inside")
    assert headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize("token", ["", "x", "link.1.n.s", "session", "link.99999999999.000.n.s"])
def test_a_made_up_link_signs_nobody_in(served: Served, token: str) -> None:
    status, _, headers = served.ask(path=f"/signin?token={token}")
    assert status == 401
    assert "set-cookie" not in headers


def test_a_session_is_no_link_and_a_link_is_no_session(served: Served) -> None:
    session, link = served.passes.make("session"), served.passes.make("link")
    assert served.ask(path=f"/signin?token={session}")[0] == 401
    assert served.ask(Cookie=f"tidemill_session_{served.port}={link}")[0] == 401


def test_a_cross_site_post_as_text_is_refused_even_with_a_session(served: Served) -> None:
    cookie, query = served.cookie(), '{"query": "mutation { launchRun }"}'
    evil: dict[str, Any] = {"Content_Type": "text/plain", "Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}
    assert served.ask("POST", "/graphql", query, Cookie=cookie, **evil)[0] == 403
    # As an old browser sends it: no Origin, no fetch metadata.
    assert served.ask("POST", "/graphql", query, Cookie=cookie, Content_Type="text/plain")[0] == 403
    assert served.ask("POST", "/graphql", query, Cookie=cookie, Content_Type="application/x-www-form-urlencoded")[0] == 403
    # Another server on this machine is the same site to a browser, but not the same origin.
    near = {"Origin": f"http://127.0.0.1:{served.port + 1}", "Content_Type": "application/json"}
    assert served.ask("POST", "/graphql", query, Cookie=cookie, **near)[0] == 403
    assert served.ask("GET", "/graphql", Cookie=cookie, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert served.inside.requests == []
    ours = {"Origin": f"http://127.0.0.1:{served.port}", "Content_Type": "application/json", "Sec_Fetch_Site": "same-origin"}
    assert served.ask("POST", "/graphql", query, Cookie=cookie, Sec_Fetch_Mode="cors", **ours)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:{port}"]
)
def test_a_host_that_is_not_ours_is_refused_as_after_dns_rebinding(served: Served, host: str) -> None:
    cookie = served.cookie()
    assert served.ask(Host=host.format(port=served.port), Cookie=cookie)[0] == 403
    assert served.inside.requests == []


def test_every_loopback_name_is_served(served: Served) -> None:
    cookie = served.cookie()
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
        assert served.ask(Host=f"{host}:{served.port}", Cookie=cookie)[0] == 200


def connect(served: Served, **headers: str) -> str:
    address = f"ws://127.0.0.1:{served.port}/graphql"
    protocol: Any = "graphql-ws"
    with websockets.sync.client.connect(address, subprotocols=[protocol], additional_headers=headers, open_timeout=5) as opened:
        return str(opened.recv())


def test_subscriptions_pass_with_a_session_and_from_our_pages_only(served: Served) -> None:
    cookie = served.cookie()
    assert connect(served, Cookie=cookie, Origin=f"http://127.0.0.1:{served.port}") == "inside"
    for headers in ({}, {"Cookie": cookie, "Origin": "https://evil.example"}, {"Cookie": f"{cookie}x"}):
        with pytest.raises(InvalidStatus, match="403"):
            connect(served, **headers)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_passes_end_with_their_time_and_with_their_key() -> None:
    clock = Clock()
    passes = Passes(KEY, clock)
    link, session = passes.make("link"), passes.make("session")
    clock.now += LINK_SECONDS + 1
    assert not passes.take_link(link)
    assert passes.session_is_valid(session)
    assert not Passes(b"another key", clock).session_is_valid(session)
    clock.now = 1_000 + SESSION_SECONDS + 1
    assert not passes.session_is_valid(session)


def test_a_restarted_gate_knows_its_sessions_and_takes_no_older_link() -> None:
    clock = Clock()
    before = Passes(KEY, clock)
    link, session = before.make("link"), before.make("session")
    clock.now += 5
    after = Passes(KEY, clock)
    assert after.session_is_valid(session)
    assert not after.take_link(link)
    assert after.take_link(before.make("link"))
