"""Keeping within a venue's request limits: a token bucket, and Binance's weight per minute as its own headers tell it."""

from collections.abc import Mapping
from datetime import datetime

from tidemill.services import Clock
from tidemill.wire import http_date

_MINUTE = 60.0


class TokenBucket:
    """At most `burst` requests at once and `rate` a second in the long run. First come, first served."""

    def __init__(self, rate: float, burst: float, clock: Clock | None = None) -> None:
        self._rate, self._burst = rate, burst
        self._clock = clock or Clock()
        self._tokens = burst
        self._filled_at = self._clock.monotonic()

    async def acquire(self, cost: float) -> None:
        """Wait until `cost` tokens are there. They are taken at once, so that later callers queue behind."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        self._tokens -= cost
        if self._tokens < 0.0:
            await self._clock.sleep(-self._tokens / self._rate)

    def observe(self, cost: float, headers: Mapping[str, str]) -> None:
        """The answers of these venues do not say how much is used."""


class WeightBudget:
    """Weight used in the venue's current minute never passes `share` of `limit`.

    The venue counts for the whole address, other programs included, and says so in a header of each answer; what was sent and
    is not answered yet is added to it. Its minutes are those of its own clock (the Date header).
    """

    def __init__(
        self, limit: float, *, share: float = 0.8, clock: Clock | None = None, header: str = "x-mbx-used-weight-1m"
    ) -> None:
        self.limit = limit
        self._share, self._header = share, header
        self._clock = clock or Clock()
        self._used = 0.0
        self._pending = 0.0
        self._minute: int | None = None  # the venue's, in minutes since the epoch
        self._ends_at = self._clock.monotonic() + _MINUTE

    @property
    def used(self) -> float:
        """Weight of the current minute as far as is known, unanswered requests included."""
        return self._used + self._pending

    async def acquire(self, cost: float) -> None:
        """Wait for the venue's next minute while `cost` more would pass the budget. A cost above all of it passes alone."""
        self._start_minute_if_due()
        while self.used > 0.0 and self.used + cost > self.limit * self._share:
            await self._clock.sleep(max(0.05, self._ends_at - self._clock.monotonic()))
            self._start_minute_if_due()
        self._pending += cost

    def observe(self, cost: float, headers: Mapping[str, str]) -> None:
        self._pending = max(0.0, self._pending - cost)
        reported = headers.get(self._header, "")
        moment = http_date(headers.get("date", ""))
        if not reported.isascii() or not reported.isdigit():
            self._used += cost  # no answer, or one that does not say: assume that it was counted
        elif moment is not None:
            self._learn(float(reported), moment)
        else:
            self._used = max(self._used + cost, float(reported))

    def _learn(self, reported: float, moment: datetime) -> None:
        minute, second = divmod(int(moment.timestamp()), int(_MINUTE))
        if self._minute is not None and minute < self._minute:
            return  # an answer of a minute that is over, overtaken by a newer one
        self._used = reported if minute != self._minute else max(self._used, reported)
        self._minute = minute
        self._ends_at = self._clock.monotonic() + _MINUTE - second

    def _start_minute_if_due(self) -> None:
        now = self._clock.monotonic()
        if now >= self._ends_at:
            self._used = 0.0
            self._minute = None if self._minute is None else self._minute + 1
            self._ends_at += _MINUTE * (1 + (now - self._ends_at) // _MINUTE)
