import asyncio
import inspect
import io
import json
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Annotated

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import http_server as fault
from tests.http_server import IMPATIENT, Answer, LoopbackServer, VirtualClock
from tidemill import telemetry, wire
from tidemill.domain.errors import (
    ConfigError,
    DeadlineError,
    MalformedError,
    RateLimitedError,
    RefusedError,
    TidemillError,
    UnavailableError,
)
from tidemill.services import BreakerPolicy, CircuitOpenError, RetryPolicy, Service

NUMBERS = msgspec.json.Decoder(list[int])
PRICES = msgspec.json.Decoder(list[Annotated[float, msgspec.Meta(gt=0, lt=1e12)]], strict=False)


@pytest.fixture
async def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def server(clock: VirtualClock) -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(lambda request: Answer(b"[1, 2, 3]"), clock=clock) as running:
        yield running


@pytest.fixture
async def service(server: LoopbackServer, clock: VirtualClock) -> AsyncIterator[Service]:
    made = Service("Quotes", server.url, options=IMPATIENT, clock=clock)
    yield made
    await made.close()


def with_options(server: LoopbackServer, clock: VirtualClock, **changes: object) -> Service:
    return Service("Quotes", server.url, options=msgspec.structs.replace(IMPATIENT, **changes), clock=clock)


# Errors of httpx


def httpx_exceptions() -> list[type[Exception]]:
    return [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)]


def test_there_are_exceptions_of_httpx_to_look_at() -> None:
    assert len(httpx_exceptions()) >= 27


@pytest.mark.parametrize("kind", httpx_exceptions(), ids=lambda kind: kind.__name__)
def test_every_exception_of_httpx_has_a_place_of_its_own_in_the_error_tree(kind: type[Exception]) -> None:
    assert kind in wire.error_meanings()
    made = wire.http_error(kind.__new__(kind), "Quotes (host)")
    assert isinstance(made, TidemillError)
    assert str(made).startswith("Quotes (host) ")


async def test_a_port_nobody_listens_on_is_unavailable(clock: VirtualClock) -> None:
    async with LoopbackServer() as gone:
        pass
    service = Service("Quotes", gone.url, options=IMPATIENT, clock=clock)
    with pytest.raises(UnavailableError, match=r"Quotes \(127\.0\.0\.1\) cannot be reached") as caught:
        await service.get("/numbers", NUMBERS)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


@pytest.mark.parametrize("address", ["ftp://host/x", "host", "", "http://", "file:///etc/passwd"])
def test_an_address_that_is_not_http_is_a_setting_to_correct(address: str) -> None:
    with pytest.raises(ConfigError, match="not an http or https URL"):
        Service("Quotes", address)


async def test_a_redirect_is_not_followed(server: LoopbackServer, service: Service) -> None:
    server.misbehave(fault.status(302, location="http://127.0.0.1:1/other"))
    with pytest.raises(ConfigError, match="redirects elsewhere"):
        await service.get("/numbers", NUMBERS)
    assert len(server.requests) == 1


# Retries


@pytest.mark.parametrize(
    "trouble",
    [
        fault.status(500),
        fault.status(502, b"<html>"),
        fault.status(503),
        fault.status(408),
        fault.reset,
        fault.cut_off,
        fault.broken_json,
        fault.web_page,
        fault.packed_and_cut_off,
    ],
)
async def test_a_passing_trouble_is_retried_and_the_answer_comes(
    server: LoopbackServer, service: Service, trouble: fault.Fault
) -> None:
    server.misbehave(trouble, times=3)
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]
    assert len(server.requests) == 4
    assert service.health().retries == 3


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (fault.status(500), UnavailableError),
        (fault.reset, UnavailableError),
        (fault.cut_off, UnavailableError),
        (fault.packed_and_cut_off, UnavailableError),
        (fault.broken_json, MalformedError),
        (fault.web_page, MalformedError),
    ],
)
async def test_a_lasting_trouble_ends_after_the_stated_attempts(
    server: LoopbackServer, service: Service, trouble: fault.Fault, error: type[TidemillError]
) -> None:
    server.always(trouble)
    with pytest.raises(error, match=r"^Quotes \(127\.0\.0\.1\)"):
        await service.get("/numbers", NUMBERS)
    assert len(server.requests) == IMPATIENT.retry.attempts


@pytest.mark.parametrize("code", [400, 401, 403, 404, 451])
async def test_a_refusal_is_told_at_once_with_its_status_and_what_was_said(
    server: LoopbackServer, service: Service, code: int
) -> None:
    server.always(fault.status(code, b'{"code":-1121,\n"msg":"Invalid symbol."}'))
    with pytest.raises(RefusedError, match=f"status {code}: .*Invalid symbol") as caught:
        await service.get("/numbers", NUMBERS)
    assert caught.value.status == code
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


async def test_retries_end_with_the_total_time_whatever_the_number_of_attempts(
    server: LoopbackServer, clock: VirtualClock
) -> None:
    def slow_failure(answer: Answer) -> Answer:
        clock.advance(25.0)
        return fault.status(503)(answer)

    server.always(slow_failure)
    retry = RetryPolicy(attempts=1_000, total=60.0, wait_first=0.0, wait_max=0.0, wait_jitter=0.0)
    service = with_options(server, clock, retry=retry)
    with pytest.raises(UnavailableError):
        await service.get("/numbers", NUMBERS)
    assert len(server.requests) == 3
    await service.close()


async def test_waiting_for_our_own_pace_does_not_count_as_time_of_the_retries(
    server: LoopbackServer, clock: VirtualClock
) -> None:
    class SlowPace:
        async def acquire(self, cost: float) -> None:
            clock.advance(100.0 * cost)

        def observe(self, cost: float, headers: Mapping[str, str]) -> None:
            pass

    server.misbehave(fault.status(503), times=3)
    service = Service("Quotes", server.url, options=IMPATIENT, clock=clock, pace=SlowPace())
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]
    assert clock.monotonic() == 400.0 > IMPATIENT.retry.total
    await service.close()


async def test_a_failure_hidden_behind_status_200_is_retried_when_the_caller_says_so(
    server: LoopbackServer, service: Service
) -> None:
    seen: list[list[int]] = []

    def check(value: list[int]) -> None:
        seen.append(value)
        if len(seen) < 3:
            raise UnavailableError("busy")

    assert (await service.get("/numbers", NUMBERS, check=check)).value == [1, 2, 3]
    assert len(server.requests) == 3


# Time-outs


async def test_a_server_that_says_nothing_is_a_deadline_error(server: LoopbackServer, clock: VirtualClock) -> None:
    server.always(fault.stall)
    service = with_options(server, clock, timeout=0.05, retry=RetryPolicy(attempts=2, wait_first=0, wait_max=0, wait_jitter=0))
    with pytest.raises(DeadlineError, match="did not answer in time"):
        await service.get("/numbers", NUMBERS)
    assert len(server.requests) == 2
    await service.close()


async def test_a_body_that_never_ends_ends_at_the_deadline(server: LoopbackServer, clock: VirtualClock) -> None:
    server.always(fault.endless)
    retry = RetryPolicy(attempts=1)
    service = with_options(server, clock, deadline=0.05, max_body=1 << 40, retry=retry)
    with pytest.raises(DeadlineError, match="for one answer"):
        await service.get("/numbers", NUMBERS)
    await service.close()


async def test_a_cancelled_request_leaves_the_service_usable(server: LoopbackServer, service: Service) -> None:
    server.misbehave(fault.stall)
    waiting = asyncio.create_task(service.get("/numbers", NUMBERS))
    await server.was_asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]


# Rate limits


async def test_retry_after_is_waited_for_and_not_a_second_less(
    server: LoopbackServer, service: Service, clock: VirtualClock
) -> None:
    server.misbehave(fault.status(429, retry_after="7"))
    asked_at = []
    server.always(lambda answer: asked_at.append(clock.monotonic()) or answer)
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]
    assert asked_at[1] - asked_at[0] >= 7.0


async def test_retry_after_may_be_a_date(server: LoopbackServer, service: Service, clock: VirtualClock) -> None:
    server.misbehave(fault.status(429, retry_after=format_datetime(clock.now() + timedelta(seconds=11), usegmt=True)))
    await service.get("/numbers", NUMBERS)
    assert clock.monotonic() == pytest.approx(11.0, abs=1.0)


async def test_a_429_without_retry_after_pauses_for_the_stated_time(
    server: LoopbackServer, service: Service, clock: VirtualClock
) -> None:
    server.misbehave(fault.status(429))
    await service.get("/numbers", NUMBERS)
    assert clock.slept == [IMPATIENT.retry.unsaid_pause]


async def test_one_429_pauses_every_request_to_the_host(server: LoopbackServer, clock: VirtualClock) -> None:
    server.misbehave(fault.status(429, retry_after="30"))
    service = with_options(server, clock, retry=RetryPolicy(attempts=1))
    with pytest.raises(RateLimitedError):
        await service.get("/numbers", NUMBERS)
    await asyncio.gather(*(service.get("/numbers", NUMBERS) for _ in range(5)))
    assert clock.monotonic() >= 30.0
    assert len(server.requests) == 6
    await service.close()


async def test_a_pause_longer_than_the_time_left_is_told_at_once_and_nothing_is_sent_before_it_is_over(
    server: LoopbackServer, service: Service, clock: VirtualClock
) -> None:
    server.misbehave(fault.status(429, retry_after="3600"))
    with pytest.raises(RateLimitedError, match="asks to wait for 3600 s") as caught:
        await service.get("/numbers", NUMBERS)
    assert caught.value.retry_after == 3_600.0
    clock.advance(1_000.0)
    with pytest.raises(RateLimitedError, match="2600 s"):
        await service.get("/numbers", NUMBERS)
    assert len(server.requests) == 1
    assert service.health().paused_for == pytest.approx(2_600.0)
    clock.advance(2_600.0)
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]


@pytest.mark.parametrize("headers", [{}, {"retry_after": "120"}, {"retry_after": "259200"}])
async def test_a_ban_is_never_tried_against(
    server: LoopbackServer, service: Service, clock: VirtualClock, headers: dict[str, str]
) -> None:
    server.misbehave(fault.status(418, **headers))
    for _ in range(3):
        with pytest.raises(RateLimitedError, match=r"has banned this address|asked to wait"):
            await service.get("/numbers", NUMBERS)
    assert len(server.requests) == 1
    assert clock.slept == []


@settings(deadline=None)
@given(st.integers(0, 10**9 - 1))
def test_a_number_in_retry_after_is_seconds(seconds: int) -> None:
    assert wire.retry_after({"retry-after": f" {seconds} "}, VirtualClock().now()) == seconds


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_in_retry_after_or_date_is_survived(text: str) -> None:
    wait = wire.retry_after({"retry-after": text}, VirtualClock().now())
    assert wait is None or wait >= 0.0
    moment = wire.http_date(text)
    assert moment is None or moment.tzinfo is not None


# Circuit breaker


async def test_a_host_that_does_not_answer_is_left_alone(server: LoopbackServer, clock: VirtualClock) -> None:
    server.always(fault.status(503))
    service = with_options(server, clock, breaker=BreakerPolicy(failures=6, open_for=3_600.0))
    with pytest.raises(UnavailableError):
        await service.get("/numbers", NUMBERS)
    with pytest.raises(CircuitOpenError, match="is left alone for 3600 s"):
        await service.get("/numbers", NUMBERS)
    retries = service.health().retries
    for _ in range(10):
        with pytest.raises(CircuitOpenError):
            await service.get("/numbers", NUMBERS)
    assert len(server.requests) == 6
    assert service.health().retries == retries
    assert service.health().circuit == "opened"
    await service.close()


async def test_a_host_that_answers_again_closes_the_circuit(server: LoopbackServer, clock: VirtualClock) -> None:
    server.misbehave(fault.reset, times=4)
    service = with_options(server, clock, breaker=BreakerPolicy(failures=4, open_for=0.0))
    with pytest.raises(UnavailableError):
        await service.get("/numbers", NUMBERS)
    assert service.health().circuit == "opened"
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]
    assert service.health().circuit == "closed"
    await service.close()


async def test_refusals_and_malformed_answers_do_not_open_the_circuit(server: LoopbackServer, clock: VirtualClock) -> None:
    server.misbehave(fault.status(404), fault.status(400), fault.changed(lambda value: {}), times=5)
    service = with_options(server, clock, breaker=BreakerPolicy(failures=2, open_for=3_600.0))
    for _ in range(15):
        with pytest.raises((RefusedError, MalformedError)):
            await service.get("/numbers", NUMBERS)
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]
    await service.close()


# Bodies


@pytest.mark.parametrize("trouble", [fault.endless, fault.gzip_bomb])
async def test_a_body_without_end_does_not_fill_memory(
    server: LoopbackServer, clock: VirtualClock, trouble: fault.Fault
) -> None:
    server.always(trouble)
    service = with_options(server, clock, max_body=4 << 20)
    await service.close()
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match="sent more than 4,194,304 bytes"):
            await service.get("/numbers", NUMBERS)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
        await service.close()
    assert len(server.requests) == 1


async def test_a_packed_body_is_unpacked(server: LoopbackServer, service: Service) -> None:
    server.misbehave(fault.packed)
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]


async def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(
    server: LoopbackServer, clock: VirtualClock
) -> None:
    for faults in ([], [fault.packed]):
        for limit, fits in ((9, True), (8, False)):
            service = with_options(server, clock, max_body=limit)
            server.misbehave(*faults)
            if fits:
                assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]
            else:
                with pytest.raises(MalformedError, match="more than 8 bytes"):
                    await service.get("/numbers", NUMBERS)
            await service.close()


@pytest.mark.parametrize("packing", ["br", "zstd", "gzip, gzip", "x"])
async def test_a_packing_that_was_not_asked_for_is_refused(server: LoopbackServer, service: Service, packing: str) -> None:
    server.always(lambda answer: Answer(b"xx", headers={"content-encoding": packing}))
    with pytest.raises(MalformedError, match="not asked for"):
        await service.get("/numbers", NUMBERS)


async def test_something_after_the_end_of_a_packed_body_is_refused(server: LoopbackServer, service: Service) -> None:
    server.always(lambda answer: Answer(fault.packed(answer).body + b"tail", headers={"content-encoding": "gzip"}))
    with pytest.raises(MalformedError, match="after the end"):
        await service.get("/numbers", NUMBERS)


@pytest.mark.parametrize("body", [b"not gzip at all", b""])
async def test_what_is_called_packed_and_is_not_is_refused(server: LoopbackServer, service: Service, body: bytes) -> None:
    server.always(lambda answer: Answer(body, headers={"content-encoding": "gzip"}))
    with pytest.raises(MalformedError):
        await service.get("/numbers", NUMBERS)


# Decoding


@pytest.mark.parametrize(
    "value", ["NaN", "nan", "inf", "-inf", "Infinity", "-1", "0", "1e13", "1e400", "", " 1", "0x1", None, True, [], {}]
)
async def test_a_number_outside_its_bounds_or_no_number_at_all_is_malformed_and_not_retried(
    server: LoopbackServer, service: Service, value: object
) -> None:
    server.always(lambda answer: Answer(json.dumps([value]).encode()))
    with pytest.raises(MalformedError, match="that its own API rules out"):
        await service.get("/prices", PRICES)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"[NaN]", b"[Infinity]", b"", b"\xff\xfe", b"[1] 2", b"[1,", b"\x00"])
def test_what_is_not_json_is_broken(body: bytes) -> None:
    with pytest.raises(wire.BrokenAnswerError, match="that is not JSON"):
        wire.decode(PRICES, body, "Quotes")


def test_nesting_without_end_is_broken_and_not_a_crash() -> None:
    class Known(msgspec.Struct):
        a: int = 0

    with pytest.raises(wire.BrokenAnswerError):
        wire.decode(msgspec.json.Decoder(Known), b'{"x":' + b"[" * 1_000_000, "Quotes")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_malformed(body: bytes) -> None:
    try:
        value = wire.decode(PRICES, body, "Quotes")
    except MalformedError:
        return
    assert value == json.loads(body)


# The pool


async def test_one_connection_serves_many_requests(server: LoopbackServer, service: Service) -> None:
    for _ in range(20):
        await service.get("/numbers", NUMBERS)
    assert server.connections == 1


async def test_the_pool_never_opens_more_connections_than_it_may(server: LoopbackServer, clock: VirtualClock) -> None:
    service = with_options(server, clock, connections=3)
    await asyncio.gather(*(service.get("/numbers", NUMBERS) for _ in range(40)))
    assert server.connections <= 3
    assert server.open_at_once <= 3
    await service.close()


async def test_a_closed_service_opens_again_when_asked(server: LoopbackServer, service: Service) -> None:
    await service.get("/numbers", NUMBERS)
    await service.close()
    await service.close()
    assert (await service.get("/numbers", NUMBERS)).value == [1, 2, 3]


# What is told about it


async def test_the_health_tells_attempts_failures_latency_and_the_last_error(
    server: LoopbackServer, service: Service, clock: VirtualClock
) -> None:
    fresh = service.health()
    assert (fresh.attempts, fresh.circuit, fresh.latency_median, fresh.last_error_at) == (0, "closed", None, None)
    server.misbehave(fault.status(503))
    server.always(lambda answer: clock.advance(0.25) or answer)
    await service.get("/numbers", NUMBERS)
    health = service.health()
    assert (health.name, health.host, health.attempts, health.failures, health.retries) == ("Quotes", "127.0.0.1", 2, 1, 1)
    assert health.latency_median == health.latency_max == 0.25
    assert "status 503" in health.last_error
    assert health.last_error_at is not None


async def test_a_reply_carries_the_time_of_the_server(server: LoopbackServer, service: Service, clock: VirtualClock) -> None:
    reply = await service.get("/numbers", NUMBERS)
    assert reply.server_time == clock.now()
    server.dated = False
    assert (await service.get("/numbers", NUMBERS)).server_time is None


async def test_the_correlation_id_travels_with_the_request(server: LoopbackServer, service: Service) -> None:
    with telemetry.correlated("run-42"):
        await service.get("/numbers", NUMBERS)
    await service.get("/numbers", NUMBERS)
    assert server.requests[0].headers["x-correlation-id"] == "run-42"
    assert "x-correlation-id" not in server.requests[1].headers


@pytest.mark.parametrize(
    "trouble", [fault.status(500), fault.reset, fault.status(403), fault.web_page, fault.changed(lambda value: 1)]
)
async def test_no_part_of_the_address_behind_the_host_reaches_an_error_or_a_log(
    server: LoopbackServer, service: Service, trouble: fault.Fault
) -> None:
    lines = io.StringIO()
    telemetry.configure("debug", json=True, stream=lines)
    try:
        server.always(trouble)
        with pytest.raises(TidemillError) as caught:
            await service.get("/bot-hunter2/send", NUMBERS, params={"key": "hunter2"})
    finally:
        telemetry.configure()
    assert '"attempt_failed"' in lines.getvalue()
    assert "hunter2" not in lines.getvalue() + str(caught.value) + repr(service.health())


async def test_the_libraries_beneath_do_not_log_addresses_and_headers(
    server: LoopbackServer, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    service = Service("Quotes", server.url, options=IMPATIENT, clock=clock, headers={"Authorization": "Bearer hunter2"})
    await service.get("/bot-hunter2/send", NUMBERS)
    await service.close()
    assert server.requests[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in caplog.text


async def test_a_get_repeats_the_same_request(server: LoopbackServer, service: Service) -> None:
    server.misbehave(fault.status(500))
    await service.get("/numbers", NUMBERS, params={"a": "1", "b": "ä&"})
    first, second = server.requests
    assert (first.path, first.params) == (second.path, second.params) == ("/numbers", {"a": "1", "b": "ä&"})
