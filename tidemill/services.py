"""The base of every outside HTTP service: one pooled client, bounded retries with jitter, a circuit breaker, health.

One `get` goes through, from outside in: retries (stamina; GET only, so a repeat is harmless) → circuit breaker of the host
(purgatory) → the pause that the other side asked for and the pace of its limits → httpx with a deadline → bounded body →
status → strict decoding → the caller's own check. Whatever goes wrong leaves as an error of `tidemill.domain.errors`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from tidemill import telemetry, wire
from tidemill.domain.errors import (
    ConfigError,
    DeadlineError,
    RateLimitedError,
    RetryError,
    TidemillError,
    UnavailableError,
)

if TYPE_CHECKING:
    import httpx
    import stamina
    from purgatory import AsyncCircuitBreakerFactory

T = TypeVar("T")

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Binance bans for two minutes at least; assumed where a ban does not say how long it is.
_SHORTEST_BAN = 120.0
_LATENCIES = 256


class Clock:
    """Time as a service sees it; tests give one that does not wait."""

    def monotonic(self) -> float:
        """Seconds from any origin, never backwards."""
        return time.monotonic()

    def now(self) -> datetime:
        """This machine's idea of the time in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long a GET is tried again. Seconds.

    total: no attempt starts later than this after the first, waiting for our own pace not counted.
    wait_first, wait_max, wait_jitter: exponential backoff and the random part added to it.
    unsaid_pause: pause of the whole host after a 429 that does not say how long.
    """

    attempts: int = 5
    total: float = 60.0
    wait_first: float = 0.2
    wait_max: float = 5.0
    wait_jitter: float = 1.0
    unsaid_pause: float = 2.0


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """After `failures` unanswered calls in a row a host is left alone for `open_for` seconds."""

    failures: int = 10
    open_for: float = 30.0


class ServiceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one service. Seconds and bytes; `deadline` is for one attempt from sending to the last byte."""

    timeout: float = 10.0
    deadline: float = 30.0
    connections: int = 16
    max_body: int = 64 * 1024 * 1024
    retry: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy = BreakerPolicy()


class Pace(Protocol):
    """The other side's limits: wait before a request, learn from its answer."""

    async def acquire(self, cost: float) -> None: ...

    def observe(self, cost: float, headers: Mapping[str, str]) -> None:
        """A request of `cost` is over; `headers` (lower case) is empty when no answer came."""
        ...


class Reply(msgspec.Struct, Generic[T], frozen=True):
    """A decoded answer. `server_time`: its Date header (whole seconds, rounded down); `elapsed`: seconds since it was asked."""

    value: T
    headers: Mapping[str, str]
    server_time: datetime | None
    elapsed: float


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot for people and metrics. Latencies in seconds over the last 256 answers, None before the first."""

    name: str
    host: str
    circuit: str
    attempts: int
    failures: int
    retries: int
    paused_for: float
    last_error: str
    last_error_at: datetime | None
    latency_median: float | None
    latency_max: float | None


class CircuitOpenError(UnavailableError):
    """Not asked at all: the host did not answer lately. Not worth a retry within seconds."""


@dataclass
class _Call(Generic[T]):
    """One `get` over its attempts. `paced`: seconds it waited for our own pace."""

    path: str
    params: Mapping[str, str]
    decoder: wire.Decoder[T]
    check: Callable[[T], None] | None
    cost: float
    began: float
    paced: float = 0.0
    attempt: int = 0


class Service:
    """An outside service that is asked by HTTP GET and answers JSON. Bound to the event loop of its first request.

    name: what people call it. base_url: scheme, host and common path. headers: sent with every request.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        options: ServiceOptions | None = None,
        pace: Pace | None = None,
        clock: Clock | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"The address of {name} is not an http or https URL. Correct it.")
        self.name, self.host = name, parts.hostname
        self.clock = clock or Clock()
        self._base_url = base_url.rstrip("/")
        self._options = options or ServiceOptions()
        self._pace = pace
        self._headers = {"User-Agent": "tidemill", "Accept": "application/json", "Accept-Encoding": "gzip", **(headers or {})}
        self._client: httpx.AsyncClient | None = None
        self._breakers: AsyncCircuitBreakerFactory | None = None
        self._caller: stamina.AsyncRetryingCaller | None = None
        self._circuit = "closed"
        self._resume_at = float("-inf")
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._attempts = self._failures = self._retries = 0
        self._last_error = ""
        self._last_error_at: datetime | None = None

    @property
    def who(self) -> str:
        """How errors name it."""
        return f"{self.name} ({self.host})"

    async def get(
        self,
        path: str,
        decoder: wire.Decoder[T],
        *,
        params: Mapping[str, str] | None = None,
        cost: float = 1.0,
        check: Callable[[T], None] | None = None,
    ) -> Reply[T]:
        """The answer to a GET, decoded.

        cost: weight for the pace. check: raises an error of the tree for an answer that hides a failure behind status 200; a
        RetryError from it is retried like any other.
        Raises RefusedError (4xx), RateLimitedError (429, 418), UnavailableError and DeadlineError, MalformedError, ConfigError.
        """
        call = _Call(path, params or {}, decoder, check, cost, self.clock.monotonic())
        return await self._retrying()(lambda exc: self._may_retry(call, exc), self._attempt, call)

    def health(self) -> ServiceHealth:
        ordered = sorted(self._latencies)
        return ServiceHealth(
            name=self.name,
            host=self.host,
            circuit=self._circuit,
            attempts=self._attempts,
            failures=self._failures,
            retries=self._retries,
            paused_for=max(0.0, self._resume_at - self.clock.monotonic()),
            last_error=self._last_error,
            last_error_at=self._last_error_at,
            latency_median=ordered[len(ordered) // 2] if ordered else None,
            latency_max=ordered[-1] if ordered else None,
        )

    async def close(self) -> None:
        """Give the connections back; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _retrying(self) -> "stamina.AsyncRetryingCaller":
        if self._caller is None:
            import stamina
            import stamina.instrumentation

            # stamina's own hook logs a warning that names nothing; retries are logged below, with the service's name.
            stamina.instrumentation.set_on_retry_hooks(())
            policy = self._options.retry
            self._caller = stamina.AsyncRetryingCaller(
                attempts=policy.attempts,
                timeout=None,  # _may_retry holds the bound: it does not count waiting for our own pace
                wait_initial=policy.wait_first,
                wait_max=policy.wait_max,
                wait_jitter=policy.wait_jitter,
            )
        return self._caller

    def _may_retry(self, call: _Call[T], exc: BaseException) -> bool:
        if isinstance(exc, CircuitOpenError) or not isinstance(exc, RetryError | wire.BrokenAnswerError):
            return False
        return self._pause_left() <= self._time_left(call)

    def _time_left(self, call: _Call[T]) -> float:
        return self._options.retry.total - (self.clock.monotonic() - call.began - call.paced)

    def _pause_left(self) -> float:
        return max(0.0, self._resume_at - self.clock.monotonic())

    async def _attempt(self, call: _Call[T]) -> Reply[T]:
        from purgatory.domain.model import OpenedState

        call.attempt += 1
        self._retries += call.attempt > 1
        breaker = await self._breaker_factory().get_breaker(self.host)
        try:
            async with breaker:
                return await self._exchange(call)
        except OpenedState as exc:
            seconds = self._options.breaker.open_for
            text = f"{self.who} did not answer lately and is left alone for {seconds:.0f} s. Try again after that."
            # purgatory raises one object again and again; its traceback would grow with each.
            raise CircuitOpenError(text) from exc.with_traceback(None)
        except TidemillError as exc:
            self._note(call, exc)
            raise

    def _breaker_factory(self) -> "AsyncCircuitBreakerFactory":
        if self._breakers is None:
            from purgatory import AsyncCircuitBreakerFactory

            policy = self._options.breaker
            # Only silence opens the circuit: an answer that refuses or does not parse shows that the host is there.
            # A cancelled call says nothing either way; the library then counts it as an answer.
            other = (BaseException, lambda exc: not isinstance(exc, UnavailableError))
            self._breakers = AsyncCircuitBreakerFactory(policy.failures, policy.open_for, exclude=[other])
            self._breakers.add_listener(self._circuit_event)
        return self._breakers

    def _circuit_event(self, _name: str, kind: str, event: object) -> None:
        if kind == "state_changed":
            self._circuit = str(getattr(event, "state", "unknown"))
            telemetry.logger(__name__).info("circuit", service=self.name, host=self.host, state=self._circuit)

    async def _exchange(self, call: _Call[T]) -> Reply[T]:
        await self._wait_turn(call)
        began = self.clock.monotonic()
        headers: Mapping[str, str] = {}
        self._attempts += 1
        try:
            status, headers, body = await self._receive(call)
        finally:
            if self._pace is not None:
                self._pace.observe(call.cost, headers)
        self._latencies.append(self.clock.monotonic() - began)
        error = wire.status_error(status, headers, body, self.who, self.clock.now())
        if error is not None:
            raise self._paused(error, status)
        value = wire.decode(call.decoder, body, self.who)
        self._check(call, value)
        return Reply(value, headers, wire.http_date(headers.get("date", "")), self.clock.monotonic() - began)

    def _check(self, call: _Call[T], value: T) -> None:
        if call.check is None:
            return
        try:
            call.check(value)
        except RateLimitedError as exc:
            raise self._paused(exc, 429) from exc

    async def _wait_turn(self, call: _Call[T]) -> None:
        """Wait for our pace, then for the pause that the other side asked for, which holds for every request to the host."""
        if self._pace is not None:
            began = self.clock.monotonic()
            await self._pace.acquire(call.cost)
            call.paced += self.clock.monotonic() - began
        try:
            while (pause := self._pause_left()) > 0.0:
                if pause > self._time_left(call):
                    raise RateLimitedError(f"{self.who} asked to wait for {pause:.0f} s. Try again after that.", pause)
                await self.clock.sleep(pause)
        except BaseException:
            if self._pace is not None:
                self._pace.observe(call.cost, {})
            raise

    def _paused(self, error: TidemillError, status: int) -> TidemillError:
        """Note the pause that a rate-limit error asks for; returns the error."""
        if isinstance(error, RateLimitedError):
            unsaid = _SHORTEST_BAN if status == 418 else self._options.retry.unsaid_pause
            pause = unsaid if error.retry_after is None else error.retry_after
            self._resume_at = max(self._resume_at, self.clock.monotonic() + pause)
        return error

    async def _receive(self, call: _Call[T]) -> tuple[int, Mapping[str, str], bytes]:
        import httpx

        headers = {"X-Correlation-ID": telemetry.correlation_id()} if telemetry.correlation_id() else {}
        deadline = self._options.deadline
        try:
            async with (
                asyncio.timeout(deadline),
                self._http().stream("GET", self._base_url + call.path, params=dict(call.params), headers=headers) as response,
            ):
                body = await wire.read_body(response, self._options.max_body, self.who)
                return response.status_code, {name.lower(): text for name, text in response.headers.items()}, body
        except TimeoutError as exc:
            raise DeadlineError(f"{self.who} took longer than {deadline:.0f} s for one answer. Try again later.") from exc
        except (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError) as exc:
            raise wire.http_error(exc, self.who) from exc

    def _http(self) -> "httpx.AsyncClient":
        if self._client is None:
            import httpx

            wire.keep_addresses_out_of_logs()
            timeout, connections = self._options.timeout, self._options.connections
            self._client = httpx.AsyncClient(
                headers=self._headers,
                timeout=httpx.Timeout(timeout),
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30.0),
                follow_redirects=False,
                trust_env=self.host not in _LOOPBACK,  # a proxy never stands before this machine itself
            )
        return self._client

    def _note(self, call: _Call[T], exc: TidemillError) -> None:
        self._failures += 1
        self._last_error, self._last_error_at = str(exc), self.clock.now()
        telemetry.logger(__name__).info(
            "attempt_failed", service=self.name, host=self.host, attempt=call.attempt, error=type(exc).__name__, reason=str(exc)
        )
