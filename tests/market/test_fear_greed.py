"""The Fear & Greed Index: recorded answers, a file with a junk line, a server that misbehaves, and when a value is known."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests import http_server as fault
from tests.http_server import IMPATIENT, Answer, LoopbackServer, Request, VirtualClock
from tidemill.domain.errors import InputError, MalformedError, RateLimitedError, RefusedError, TidemillError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.market.fear_greed import (
    API,
    FearGreedApi,
    FearGreedFile,
    as_known,
    fear_greed_source,
    join_known,
    next_due,
    settled,
)

FIRST = datetime(2024, 3, 1, tzinfo=UTC)
NOW = datetime(2024, 3, 21, 15, 30, tzinfo=UTC)


def day(number: int) -> datetime:
    return FIRST + timedelta(days=number)


def index_answer(request: Request) -> Answer:
    """21 days to 2024-03-21, the newest first, as the API gives them; `limit` cuts the list, 0 gives all."""
    days = [{"value": str(20 + number), "value_classification": "Fear", "timestamp": str(int(day(number).timestamp()))}
            for number in range(20, -1, -1)]  # fmt: skip
    days[0]["time_until_update"] = "30600"
    limit = int(request.params["limit"])
    return Answer(
        json.dumps({"name": "Fear and Greed Index", "data": days[: limit or None], "metadata": {"error": None}}).encode()
    )


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer(index_answer, clock=VirtualClock(NOW)) as running:
        yield running


@pytest.fixture
async def api(server: LoopbackServer) -> AsyncIterator[FearGreedApi]:
    made = FearGreedApi(base_url=server.url, options=IMPATIENT, clock=server.clock)
    yield made
    await made.close()


async def test_the_whole_history_is_one_request_and_the_running_day_is_left_out(
    server: LoopbackServer, api: FearGreedApi
) -> None:
    found = await api.values(None)
    assert found["stamp"].to_list() == [day(number) for number in range(20)]
    assert found["value"].to_list() == [20.0 + number for number in range(20)]
    assert [(request.path, request.params["limit"]) for request in server.requests] == [("/fng/", "0")]


async def test_only_the_missing_days_and_a_week_before_them_are_asked_for(server: LoopbackServer, api: FearGreedApi) -> None:
    found = await api.values(day(17))
    assert server.requests[0].params["limit"] == "11"
    assert found["stamp"].max() == day(19)


@pytest.mark.parametrize("sample", [0, 1, 2])
async def test_the_recorded_answers_are_read(shared_data: Path, sample: int) -> None:
    recorded = json.loads((shared_data / "fear_greed_index" / "api_json_samples.json").read_text())
    answer = [value for name, value in recorded.items() if name != "note"][sample]
    async with LoopbackServer(lambda _: Answer(json.dumps(answer).encode()), clock=VirtualClock(day(1_000))) as server:
        api = FearGreedApi(base_url=server.url, options=IMPATIENT, clock=server.clock)
        found = await api.values(None)
        await api.close()
    wanted = {datetime.fromtimestamp(int(item["timestamp"]), UTC): float(item["value"]) for item in answer["data"]}
    assert dict(found.rows()) == {stamp: value for stamp, value in wanted.items() if stamp + timedelta(days=1) <= day(1_000)}


@pytest.mark.parametrize("misbehaviour", [fault.reset, fault.cut_off, fault.broken_json, fault.web_page, fault.status(503)])
async def test_a_passing_fault_is_tried_again(server: LoopbackServer, api: FearGreedApi, misbehaviour: fault.Fault) -> None:
    server.misbehave(misbehaviour, times=2)
    assert (await api.values(None)).height == 20
    assert len(server.requests) == 3


def _first(change: dict[str, Any]) -> fault.Fault:
    def apply(value: Any) -> Any:
        value["data"][3] |= change
        return value

    return fault.changed(apply)


@pytest.mark.parametrize(
    ("misbehaviour", "error"),
    [
        (fault.reset, TidemillError),
        (fault.status(404), RefusedError),
        (fault.endless, MalformedError),
        (_first({"value": "101"}), MalformedError),
        (_first({"value": "-1"}), MalformedError),
        (_first({"value": "NaN"}), MalformedError),
        (_first({"value": "12.5"}), MalformedError),
        (_first({"value": None}), MalformedError),
        (_first({"timestamp": "99999999999"}), MalformedError),
        (_first({"timestamp": "yesterday"}), MalformedError),
        (_first({"timestamp": str(int(day(2).timestamp()))}), MalformedError),
        (fault.changed(lambda value: {**value, "data": []}), MalformedError),  # type: ignore[dict-item]  # an object
        (fault.changed(lambda value: value["data"]), MalformedError),  # type: ignore[index]  # an object
        (fault.changed(lambda value: {**value, "metadata": {"error": "no such limit"}}), RefusedError),  # type: ignore[dict-item]
    ],
)
async def test_a_wrong_answer_gives_an_error_of_the_tree_and_no_value(
    server: LoopbackServer, api: FearGreedApi, misbehaviour: fault.Fault, error: type[TidemillError]
) -> None:
    server.always(misbehaviour)
    with pytest.raises(error) as raised:
        await api.values(None)
    assert "Fear & Greed" in str(raised.value)
    server.behave()
    assert (await api.values(None)).height == 20


async def test_the_pause_that_the_service_asks_for_is_kept(server: LoopbackServer, api: FearGreedApi) -> None:
    server.misbehave(fault.status(429, retry_after="7"))
    assert (await api.values(None)).height == 20
    assert isinstance(server.clock, VirtualClock)
    assert sum(server.clock.slept) >= 7.0
    server.always(fault.status(429, retry_after="3600"))
    with pytest.raises(RateLimitedError):
        await api.values(None)


# --- files


async def test_the_recorded_file_is_read_but_for_its_junk_line(shared_data: Path) -> None:
    path = shared_data / "fear_greed_index" / "fear_greed_index.csv"
    found = await FearGreedFile(path).values(None)
    assert found.height == 2_524
    assert found.row(0) == (datetime(2018, 2, 1, tzinfo=UTC), 30.0)
    assert found.row(-1) == (datetime(2025, 1, 2, tzinfo=UTC), 70.0)


async def test_a_file_as_the_api_answers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(index_answer(Request("", {"limit": "0"}, {})).body)
    found = await FearGreedFile(path, clock=VirtualClock(NOW)).values(None)
    assert found.height == 20


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("index.csv", "date,value\nnever,many\n2024-01-01,900\n", "no usable line"),
        ("index.csv", "when,what\n2024-01-01,50\n", "no column for the date"),
        ("index.csv", "date,value\n2024-01-01,50\n2024-01-01,51\n", "two values for 2024-01-01"),
        ("index.json", '{"data": 3}', "not an answer"),
    ],
)
async def test_an_unfit_file_is_refused_with_its_name(tmp_path: Path, name: str, text: str, match: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=match) as raised:
        await FearGreedFile(path).values(None)
    assert name in str(raised.value)


def test_a_source_that_is_not_there_is_an_error_that_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"alternative\.me"):
        fear_greed_source("coinbase")
    with pytest.raises(UnknownNameError):
        fear_greed_source("file:")
    with pytest.raises(InputError, match="does not exist"):
        fear_greed_source(f"file:{tmp_path / 'nothing.csv'}")
    assert fear_greed_source(API).name == API


# --- when a value is known


def versions(values: list[tuple[int, float, float]]) -> pl.DataFrame:
    """stamp, value, known_at from (day of the stamp, value, day at which it was known)."""
    return pl.DataFrame(
        [(day(stamp), value, FIRST + timedelta(days=known)) for stamp, value, known in values],
        schema={"stamp": pl.Datetime("us", "UTC"), "value": pl.Float64, "known_at": pl.Datetime("us", "UTC")},
        orient="row",
    )


def hourly(first: int, days: int) -> pl.DataFrame:
    times = [day(first) + timedelta(hours=hour) for hour in range(24 * days)]
    return pl.DataFrame(
        {"symbol": ["A"] * len(times), "open_time": times}, schema_overrides={"open_time": pl.Datetime("us", "UTC")}
    )


def test_a_daily_value_joins_an_hourly_panel_from_the_end_of_its_day() -> None:
    known = as_known(versions([(0, 40.0, 1), (1, 60.0, 2)]))
    joined = join_known(hourly(0, 3), known, Interval.parse("1h"))
    values = dict(zip(joined["open_time"].to_list(), joined["fear_greed"].to_list(), strict=True))
    # The bar that opens at 22:00 closes an hour before the day of the first stamp is over.
    assert values[day(0) + timedelta(hours=22)] != values[day(0) + timedelta(hours=22)]
    assert values[day(0) + timedelta(hours=23)] == 40.0
    assert values[day(1) + timedelta(hours=22)] == 40.0
    assert values[day(1) + timedelta(hours=23)] == 60.0


def test_a_daily_bar_has_the_value_of_its_own_day() -> None:
    bars = pl.DataFrame({"symbol": ["A"] * 3, "open_time": [day(number) for number in range(3)]})
    known = as_known(versions([(0, 40.0, 1), (1, 60.0, 2), (2, 50.0, 3)]))
    assert join_known(bars, known, Interval.parse("1d"))["fear_greed"].to_list() == [40.0, 60.0, 50.0]


def test_a_value_is_held_over_a_gap_and_not_for_longer_than_a_week() -> None:
    bars = pl.DataFrame({"symbol": ["A"] * 12, "open_time": [day(number) for number in range(12)]})
    joined = join_known(bars, as_known(versions([(0, 40.0, 1)])), Interval.parse("1d"))["fear_greed"]
    assert joined.is_nan().to_list() == [False] * 8 + [True] * 4


def test_the_change_is_to_the_value_of_seven_days_before_and_missing_where_that_is() -> None:
    rows = [(number, float(number**2), number + 1) for number in range(12) if number != 3]
    known = as_known(versions(rows))
    changes = dict(zip(known["known_at"].to_list(), known["fear_greed_change_7"].to_list(), strict=True))
    assert changes[day(10)] == 9.0**2 - 2.0**2
    assert changes[day(11)] != changes[day(11)]
    assert changes[day(2)] != changes[day(2)]


def test_a_version_counts_from_its_receipt_and_never_hides_a_newer_day() -> None:
    rows = [
        (0, 40.0, 1),
        (0, 45.0, 1.5),
        (1, 60.0, 2),
        (1, 61.0, 4.5),
        (2, 50.0, 3),
        (7, 10.0, 8),
        (0, 41.0, 9.0),
        (8, 12.0, 9),
    ]
    known = as_known(versions(rows)).rows()
    shown = [((at - FIRST) / timedelta(days=1), value) for at, value, _ in known]
    assert shown == [(1.0, 40.0), (1.5, 45.0), (2.0, 60.0), (3.0, 50.0), (8.0, 10.0), (9.0, 12.0)]
    # At day 8 the day 0 was known as 45; its version of day 9 came too late. That of day 1 came in time for day 8's change.
    assert known[4][2] == 10.0 - 45.0
    assert known[5][2] == 12.0 - 61.0


def test_what_is_known_later_changes_nothing_before() -> None:
    rows = [(number, float(number * 7 % 50), number + 1) for number in range(60)]
    whole = as_known(versions(rows))
    for cut in (1, 9, 30):
        part = as_known(versions([row for row in rows if row[2] <= cut]))
        assert part.equals(whole.filter(pl.col("known_at") <= day(cut)), null_equal=True)


def test_the_next_value_is_due_when_the_next_day_is_over() -> None:
    assert next_due(None) < FIRST
    assert next_due(day(3)) == day(5)
    assert settled([day(0), day(0), day(1)], [1.0, 1.0, 2.0], now=day(2)).height == 2
