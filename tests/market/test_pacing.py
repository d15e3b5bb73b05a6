import asyncio
from datetime import timedelta
from email.utils import format_datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http_server import VirtualClock
from tidemill.market.pacing import TokenBucket, WeightBudget


def headers(clock: VirtualClock, used: float | None, behind: float = 0.0) -> dict[str, str]:
    moment = (clock.now() - timedelta(seconds=behind)).replace(microsecond=0)
    made = {"date": format_datetime(moment, usegmt=True)}
    return made if used is None else {**made, "x-mbx-used-weight-1m": str(int(used))}


@settings(deadline=None)
@given(st.floats(0.5, 50.0), st.integers(1, 20), st.lists(st.floats(0.0, 3.0), max_size=60))
def test_a_bucket_never_lets_more_through_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    clock = VirtualClock()
    bucket = TokenBucket(rate, burst, clock)
    passed: list[float] = []

    async def run() -> None:
        for pause in pauses:
            clock.advance(pause)
            await bucket.acquire(1.0)
            passed.append(clock.monotonic())

    asyncio.run(run())
    for first, begun in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - begun) * rate + 1e-6


async def test_a_bucket_that_was_left_alone_holds_no_more_than_its_burst() -> None:
    clock = VirtualClock()
    bucket = TokenBucket(2.0, 3.0, clock)
    clock.advance(1_000.0)
    for _ in range(3):
        await bucket.acquire(1.0)
    assert clock.slept == []
    await bucket.acquire(1.0)
    assert clock.slept == [0.5]


class Venue:
    """Counts weight by its own minute, as Binance does."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.used, self.worst = clock, dict[int, float](), 0.0

    def take(self, cost: float) -> float:
        minute = int(self.clock.now().timestamp()) // 60
        self.used[minute] = self.used.get(minute, 0.0) + cost
        self.worst = max(self.worst, self.used[minute])
        return self.used[minute]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 20)), max_size=80), st.booleans())
def test_the_weight_of_a_venues_minute_never_passes_the_share_of_its_limit(steps: list[tuple[float, int]], told: bool) -> None:
    clock = VirtualClock()
    budget = WeightBudget(100.0, share=0.8, clock=clock)
    venue = Venue(clock)

    async def run() -> None:
        for pause, cost in steps:
            clock.advance(pause)
            await budget.acquire(cost)
            used = venue.take(cost)
            budget.observe(cost, headers(clock, used if told else None))

    asyncio.run(run())
    # Without headers the venue's minutes are unknown: two of ours may fall into one of its own.
    assert venue.worst <= (80.0 if told else 160.0)


async def test_what_others_use_is_learnt_from_the_header() -> None:
    clock = VirtualClock()
    budget = WeightBudget(100.0, share=0.8, clock=clock)
    await budget.acquire(2.0)
    budget.observe(2.0, headers(clock, 79))
    await budget.acquire(2.0)
    assert clock.slept == [30.0]  # the clock starts at second 30 of a minute
    assert budget.used == 2.0


async def test_what_is_sent_and_not_answered_counts() -> None:
    clock = VirtualClock()
    budget = WeightBudget(100.0, share=0.8, clock=clock)
    for _ in range(40):
        await budget.acquire(2.0)
    assert (budget.used, clock.slept) == (80.0, [])
    budget.observe(2.0, headers(clock, 2))
    assert budget.used == 80.0


async def test_an_answer_of_the_minute_before_does_not_count_for_this_one() -> None:
    clock = VirtualClock()
    budget = WeightBudget(100.0, clock=clock)
    await budget.acquire(2.0)
    await budget.acquire(2.0)
    clock.advance(31.0)
    budget.observe(2.0, headers(clock, 2))
    budget.observe(2.0, headers(clock, 78, behind=5.0))
    assert budget.used == 2.0


async def test_answers_that_overtake_each_other_do_not_lower_what_is_used() -> None:
    clock = VirtualClock()
    budget = WeightBudget(100.0, clock=clock)
    budget.observe(0.0, headers(clock, 50))
    budget.observe(0.0, headers(clock, 40))
    assert budget.used == 50.0


async def test_a_cost_above_the_whole_budget_passes_alone_instead_of_waiting_for_ever() -> None:
    clock = VirtualClock()
    budget = WeightBudget(10.0, clock=clock)
    await budget.acquire(20.0)
    budget.observe(20.0, headers(clock, 20))
    await budget.acquire(20.0)
    assert len(clock.slept) == 1


async def test_a_header_that_is_no_number_is_not_believed() -> None:
    clock = VirtualClock()
    budget = WeightBudget(100.0, clock=clock)
    await budget.acquire(7.0)
    budget.observe(7.0, {"x-mbx-used-weight-1m": "٣"})
    assert budget.used == 7.0
