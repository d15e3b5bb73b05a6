"""Bars keep every version; writing the same again changes nothing; what was known at a time can be asked for again."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.calendars import ALWAYS, XNYS
from tidemill.config import Secret
from tidemill.domain.errors import InputError, IntegrityError, UnavailableError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS, Instrument
from tidemill.storage import bar_reader, bar_writer
from tidemill.storage.bar_reader import _BARS
from tidemill.storage.bar_rows import newest_rows
from tidemill.storage.bars import BarStore
from tidemill.storage.endings import Mirrored, gone_bars
from tidemill.storage.merge import Merged
from tidemill.storage.postgres import Database

HOUR = Interval.parse("1h")
START = datetime(2024, 1, 31, 22, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def bars(*rows: tuple[str, int, float], quote_volume: float | None = None) -> pl.DataFrame:
    """Bars from (symbol, hours after START, close)."""
    return pl.DataFrame(
        {
            "symbol": [symbol for symbol, _, _ in rows],
            "open_time": pl.Series([START + timedelta(hours=hours) for _, hours, _ in rows], dtype=TIME),
            **{name: [close for _, _, close in rows] for name in ("open", "high", "low", "close")},
            "volume": [1.0] * len(rows),
            "quote_volume": pl.Series([quote_volume] * len(rows), dtype=pl.Float64),
        }
    ).with_columns(known_at=pl.col("open_time") + pl.duration(hours=1))


def closes(frame: pl.DataFrame) -> list[tuple[str, float]]:
    return list(frame.select("symbol", "close").iter_rows())


async def test_what_was_written_is_read_back_with_the_columns_of_a_bars_frame(store: BarStore) -> None:
    given_bars = bars(("A", 0, 1.0), ("A", 1, 2.0), ("B", 5, 3.0), quote_volume=7.5)
    written = await store.write("v", HOUR, given_bars)
    assert (written.inserted, written.unchanged, written.restated) == (3, 0, 0)
    assert written.changed_months == ("2024-01", "2024-02")
    assert (await store.read("v", HOUR)).equals(given_bars.select(BAR_COLUMNS))


async def test_unsorted_rows_and_equal_duplicates_are_one_sorted_set(store: BarStore) -> None:
    written = await store.write("v", HOUR, bars(("B", 1, 1.0), ("A", 2, 2.0), ("A", 1, 3.0), ("B", 1, 1.0)))
    assert written.inserted == 3
    assert closes(await store.read("v", HOUR)) == [("A", 3.0), ("A", 2.0), ("B", 1.0)]


async def test_the_same_bars_again_change_nothing(store: BarStore, database: Database) -> None:
    given_bars = bars(("A", 0, 1.0), ("A", 1, 2.0))
    await store.write("v", HOUR, given_bars)
    before = await database.fetch("SELECT * FROM bars ORDER BY open_time")
    again = await store.write("v", HOUR, given_bars)
    assert (again.inserted, again.unchanged, again.restated, again.changed_months) == (0, 2, 0, ())
    assert await database.fetch("SELECT * FROM bars ORDER BY open_time") == before
    assert await store.months("v", HOUR) == {"2024-01": 1}


async def test_a_restated_bar_keeps_both_versions_and_each_time_sees_its_own(store: BarStore, database: Database) -> None:
    restated_at = datetime(2024, 6, 1, tzinfo=UTC)
    await store.write("v", HOUR, bars(("A", 0, 1.0), ("A", 1, 2.0)))
    written = await store.write("v", HOUR, bars(("A", 0, 1.5), ("A", 1, 2.0)), received_at=restated_at)
    assert (written.inserted, written.unchanged, written.restated) == (0, 1, 1)
    assert closes(await store.read("v", HOUR)) == [("A", 1.5), ("A", 2.0)]
    assert closes(await store.read("v", HOUR, as_of=restated_at - timedelta(seconds=1))) == [("A", 1.0), ("A", 2.0)]
    assert closes(await store.read("v", HOUR, as_of=restated_at)) == [("A", 1.5), ("A", 2.0)]
    assert closes(await store.read("v", HOUR, as_of=START + timedelta(hours=1))) == [("A", 1.0)]
    versions = await database.fetch("SELECT known_at, vintage_unknown FROM bars WHERE open_time = $1 ORDER BY known_at", START)
    assert [tuple(version) for version in versions] == [(START + timedelta(hours=1), True), (restated_at, False)]


async def test_a_restatement_that_is_taken_back_is_a_third_version(store: BarStore) -> None:
    for day, close in ((1, 1.0), (2, 1.5), (3, 1.0)):
        await store.write("v", HOUR, bars(("A", 0, close)), received_at=datetime(2024, 6, day, tzinfo=UTC))
    seen = [closes(await store.read("v", HOUR, as_of=datetime(2024, 6, day, tzinfo=UTC))) for day in (1, 2, 3)]
    assert seen == [[("A", 1.0)], [("A", 1.5)], [("A", 1.0)]]


async def test_a_bar_received_later_than_its_close_has_a_known_vintage(store: BarStore, database: Database) -> None:
    late = bars(("A", 0, 1.0)).with_columns(known_at=pl.lit(START + timedelta(hours=3)).cast(TIME))
    await store.write("v", HOUR, late)
    assert await database.fetchval("SELECT vintage_unknown FROM bars") is False
    assert (await store.read("v", HOUR, as_of=START + timedelta(hours=2))).height == 0


OPERATIONS = st.lists(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 5), st.sampled_from([1.0, 2.0, 3.0])), min_size=1, max_size=8),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=OPERATIONS)
async def test_every_time_sees_what_a_dictionary_of_versions_says(
    database: Database, store: BarStore, writes: list[list[tuple[str, int, float]]]
) -> None:
    await database.execute("DELETE FROM bars; DELETE FROM bar_months; DELETE FROM series")
    first_receipt = datetime(2025, 1, 1, tzinfo=UTC)
    versions: dict[tuple[str, int], list[tuple[datetime, float]]] = {}
    for number, rows in enumerate(writes):
        unique = {(symbol, hours): close for symbol, hours, close in rows}
        receipt = first_receipt + timedelta(days=number)
        expected = [0, 0, 0]
        for (symbol, hours), close in unique.items():
            known = versions.setdefault((symbol, hours), [])
            if not known:
                known.append((START + timedelta(hours=hours + 1), close))
            elif known[-1][1] != close:
                known.append((receipt, close))
            else:
                expected[1] += 1
                continue
            expected[0 if len(known) == 1 else 2] += 1
        done = await store.write(
            "v", HOUR, bars(*((symbol, hours, close) for (symbol, hours), close in unique.items())), received_at=receipt
        )
        assert [done.inserted, done.unchanged, done.restated] == expected
    for number in range(-1, len(writes)):
        moment = first_receipt + timedelta(days=number)
        expected_closes = [
            (symbol, [close for known_at, close in known if known_at <= moment][-1])
            for (symbol, _), known in sorted(versions.items())
        ]
        assert closes(await store.read("v", HOUR, as_of=moment)) == expected_closes


async def test_reading_can_be_narrowed_by_symbol_time_and_number(store: BarStore) -> None:
    rows = [(symbol, hours, 10.0 * number + hours) for number, symbol in enumerate("ABC", start=1) for hours in range(4)]
    await store.write("v", HOUR, bars(*rows))
    assert closes(await store.read("v", HOUR, symbols=["C", "A"], start=START + timedelta(hours=3))) == [
        ("A", 13.0),
        ("C", 33.0),
    ]
    assert closes(await store.read("v", HOUR, symbols=["B"], end=START + timedelta(hours=1))) == [("B", 20.0)]
    assert closes(await store.read("v", HOUR, symbols=["B"], limit=2)) == [("B", 22.0), ("B", 23.0)]
    assert closes(await store.read("v", HOUR, limit=3)) == [("A", 13.0), ("B", 23.0), ("C", 33.0)]
    nothing = await store.read("v", HOUR, symbols=["x'; DROP TABLE bars; --"])
    assert nothing.height == 0
    assert tuple(nothing.columns) == BAR_COLUMNS


async def test_datasets_and_their_symbols_are_known(store: BarStore) -> None:
    await store.write("v", HOUR, bars(("A", 0, 1.0), ("B", 0, 1.0)))
    await store.write("w", Interval.parse("30m"), bars(("A", 0, 1.0)).drop("known_at"))
    assert await store.datasets() == [("v", "1h"), ("w", "30m")]
    assert await store.datasets_of("A") == [("v", "1h"), ("w", "30m")]
    assert await store.datasets_of("B") == [("v", "1h")]
    assert await store.datasets_of("Z") == []
    assert await store.symbols("v", HOUR) == ["A", "B"]


async def test_the_version_of_a_month_grows_with_each_change_of_it(store: BarStore) -> None:
    await store.write("v", HOUR, bars(("A", 0, 1.0), ("A", 5, 1.0)))
    await store.write("v", HOUR, bars(("A", 5, 2.0)))
    await store.write("v", HOUR, bars(("A", 5, 2.0)))
    assert await store.months("v", HOUR) == {"2024-01": 1, "2024-02": 2}


async def test_writers_of_the_same_bars_at_once_store_each_bar_once(migrated_dsn: Secret, database: Database) -> None:
    times = pl.datetime_range(START, START + timedelta(hours=1_000), "1h", time_unit="us", time_zone="UTC", eager=True)
    frame = pl.concat(
        [
            pl.DataFrame({"symbol": symbol, "open_time": times}).with_columns(
                **{name: pl.lit(1.0) for name in ("open", "high", "low", "close", "volume")}
            )
            for symbol in "ABCD"
        ]
    )
    pools = [await Database.connect(migrated_dsn) for _ in range(3)]
    written = await asyncio.gather(*(BarStore(pool).write("v", HOUR, frame) for pool in pools))
    assert sum(write.inserted for write in written) == frame.height
    assert sum(write.restated for write in written) == 0
    assert await database.fetchval("SELECT count(*) FROM bars") == frame.height
    await asyncio.gather(*(pool.close() for pool in pools))


async def test_a_writer_waits_for_another_one_of_the_same_month_and_then_says_so(
    store: BarStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_writer, "_LOCK", bar_writer._LOCK.replace("'2s'", "'20ms'"))
    monkeypatch.setattr(bar_writer, "_PATIENCE", 0.2)
    async with database.transaction() as other:
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended('bars/v/1h/2024-01-01', 0))")
        with pytest.raises(UnavailableError, match="Another process works on the same rows"):
            await store.write("v", HOUR, bars(("A", 0, 1.0)))
    assert (await store.write("v", HOUR, bars(("A", 0, 1.0)))).inserted == 1


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"symbol": pl.lit("a/../b")}, InputError, "not a symbol"),
        ({"symbol": pl.lit("'; DROP TABLE bars; --")}, InputError, "not a symbol"),
        ({"open_time": pl.col("open_time") + pl.duration(seconds=30)}, InputError, "grid"),
        ({"open_time": pl.lit(None, TIME)}, InputError, "grid"),
        ({"close": pl.lit(float("nan"))}, IntegrityError, "bars_prices"),
        ({"low": pl.lit(0.0)}, IntegrityError, "bars_prices"),
        ({"high": pl.lit(0.5)}, IntegrityError, "bars_prices"),
        ({"high": pl.lit(float("inf"))}, IntegrityError, "bars_prices"),
        ({"volume": pl.lit(-1.0)}, IntegrityError, "bars_volume"),
        ({"volume": pl.lit(None, pl.Float64)}, IntegrityError, "volume"),
        ({"known_at": pl.col("open_time")}, IntegrityError, "known_after_open"),
    ],
)
async def test_what_cannot_be_a_bar_is_refused_and_nothing_of_the_batch_is_stored(
    store: BarStore, change: dict[str, pl.Expr], error: type[Exception], text: str
) -> None:
    good = bars(("A", 0, 1.0), ("A", 1, 1.0))
    bad = pl.concat([good.head(1), good.tail(1).with_columns(**change)])
    with pytest.raises(error, match=text):
        await store.write("v", HOUR, bad)
    assert (await store.read("v", HOUR)).height == 0
    assert await store.months("v", HOUR) == {}


async def test_one_bar_with_two_sets_of_values_is_refused(store: BarStore) -> None:
    with pytest.raises(InputError, match="A has two bars with different values at 2024-01-31 22:00"):
        await store.write("v", HOUR, bars(("A", 0, 1.0), ("A", 0, 2.0)))


async def test_a_frame_without_rows_writes_nothing(store: BarStore) -> None:
    written = await store.write("v", HOUR, bars())
    assert (written.inserted, written.changed_months) == (0, ())


async def test_a_batch_larger_than_one_transaction_arrives_whole(store: BarStore) -> None:
    minute = Interval.parse("1m")
    times = pl.datetime_range(
        datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 31, tzinfo=UTC), "1m", time_unit="us", time_zone="UTC", eager=True
    )
    price = pl.arange(len(times), eager=True).cast(pl.Float64) + 1
    frame = pl.concat(
        [
            pl.DataFrame({"symbol": symbol, "open_time": times}).with_columns(
                **dict.fromkeys(("open", "high", "low", "close", "volume"), price)
            )
            for symbol in ("A", "BB", "CCC", "DDDD")
        ]
    )
    assert (await store.write("v", minute, frame)).inserted == frame.height
    assert (await store.read("v", minute)).select(frame.columns).equals(frame)
    assert (await store.write("v", minute, frame)).unchanged == frame.height


async def test_real_bars_of_an_exchange_survive_the_round_trip(store: BarStore, shared_data: Path) -> None:
    real = (
        pl.scan_parquet(shared_data / "binance_spot_2024_5m" / "binance_spot_15m_3sym.parquet")
        .with_columns(pl.col("open_time").cast(TIME))
        .sort("symbol", "open_time")
        .collect()
    )
    quarter = Interval.parse("15m")
    written = await store.write("binance", quarter, real)
    assert written.inserted == real.height
    found = await store.read("binance", quarter)
    assert found.select(real.columns).equals(real)
    assert found.filter(pl.col("known_at") != pl.col("open_time") + pl.duration(minutes=15)).height == 0


async def test_instruments_come_back_as_they_were_and_can_change(store: BarStore) -> None:
    first = Instrument(venue="v", symbol="A", calendar=XNYS, listed_at=START, can_short=True, lot=0.5)
    second = Instrument(venue="v", symbol="B", calendar=ALWAYS)
    assert await store.write_instruments([first, second]) == Merged(inserted=2)
    assert await store.write_instruments([first, second]) == Merged(unchanged=2)
    assert await store.write_instruments([]) == Merged()
    assert await store.read_instruments("v") == [first, second]
    delisted = Instrument(venue="v", symbol="B", calendar=ALWAYS, delisted_at=START)
    assert await store.write_instruments([delisted]) == Merged(updated=1)
    assert await store.read_instruments("v", ["B"]) == [delisted]


def actions(*rows: tuple[str, str, datetime, float, datetime]) -> pl.DataFrame:
    schema = {"symbol": pl.String, "kind": pl.String, "ex_time": TIME, "value": pl.Float64, "known_at": TIME}
    return pl.DataFrame(rows, schema=schema, orient="row")


async def test_an_adjustment_is_seen_from_the_time_it_was_known(store: BarStore) -> None:
    day = timedelta(days=1)
    split, revised = ("A", "split", START, 2.0, START), ("A", "split", START, 3.0, START + day)
    assert await store.write_adjustments("v", actions(split)) == Merged(inserted=1)
    assert await store.write_adjustments("v", actions(split, revised)) == Merged(inserted=1, unchanged=1)
    assert (await store.read_adjustments("v", ("A",))).rows() == [revised]
    assert (await store.read_adjustments("v", as_of=START)).rows() == [split]
    assert (await store.read_adjustments("v", ("B",))).height == 0
    with pytest.raises(IntegrityError):
        await store.write_adjustments("v", actions(("A", "split", START, -2.0, START)))


def gaps(*rows: tuple[str, int, int]) -> pl.DataFrame:
    table = [(symbol, START + timedelta(hours=start), START + timedelta(hours=end), end - start) for symbol, start, end in rows]
    return pl.DataFrame(table, schema={"symbol": pl.String, "start": TIME, "end": TIME, "missing": pl.Int64}, orient="row")


async def test_a_gap_that_is_no_longer_found_is_closed_and_can_open_again(store: BarStore, database: Database) -> None:
    await store.write_gaps("v", HOUR, gaps(("A", 0, 2), ("B", 0, 3)))
    await store.write_gaps("v", HOUR, gaps(("B", 0, 3)))
    assert (await store.read_gaps("v", HOUR)).equals(gaps(("B", 0, 3)))
    assert await database.fetchval("SELECT filled_at IS NOT NULL FROM gaps WHERE symbol = 'A'")
    await store.write_gaps("v", HOUR, gaps(("A", 0, 2)), symbols=["A"])
    assert (await store.read_gaps("v", HOUR)).equals(gaps(("A", 0, 2), ("B", 0, 3)))
    await store.write_gaps("v", HOUR, gaps())
    assert (await store.read_gaps("v", HOUR)).height == 0


async def test_quarantined_rows_are_kept_once_whatever_their_text_holds(store: BarStore) -> None:
    schema = {"venue": pl.String, "interval": pl.String, "symbol": pl.String, "open_time": TIME, "reason": pl.String,
              "detail": pl.String, "source": pl.String, "source_line": pl.Int64}  # fmt: skip
    rows = pl.DataFrame(
        [
            ("v", "1h", "nul\x00 '; DROP TABLE bars; --", None, "bad_symbol", "x" * 9_000, "é" * 9_000, 3),
            ("v", "1h", "A", START, "null", "close", "f.csv", None),
            ("v", "1h", None, START, "null", None, "f.csv", None),
        ],
        schema=schema,
        orient="row",
    )
    assert await store.write_quarantine(rows) == 3
    assert await store.write_quarantine(rows) == 0
    found = await store.read_quarantine("v", HOUR)
    assert set(found["symbol"]) == {"nul� '; DROP TABLE bars; --", "A", ""}
    assert found["detail"].str.len_chars().max() == 500
    assert (await store.read_quarantine("w")).height == 0
    assert (await store.read_quarantine(limit=1)).height == 1


@pytest.mark.parametrize("symbols", [None, ["A"], ["A", "C"]])
@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_read_streams_from_the_index_so_that_it_never_falls_silent(
    store: BarStore, database: Database, symbols: list[str] | None, analyzed: bool
) -> None:
    """A sort before the first row would look like a dead server once there are enough rows."""
    await store.write("v", HOUR, bars(*((symbol, hours, 1.0) for symbol in "ABC" for hours in range(0, 2_000, 7))))
    await store.write("w", HOUR, bars(*(("A", hours, 1.0) for hours in range(0, 2_000, 3))))
    if analyzed:
        await database.execute("ANALYZE bars")
    async with database.transaction(snapshot=True) as connection:
        await connection.execute("SET LOCAL enable_sort = off")
        arguments = ("v", "1h", START, START + timedelta(days=90), symbols, None)
        plan = [row[0] for row in await connection.fetch("EXPLAIN " + _BARS, *arguments)]
    assert [line for line in plan if "Sort " in line and "Sort Key" not in line] == []
    assert any("Index" in line for line in plan)


async def test_months_are_read_in_pieces_and_come_back_as_one(store: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar_reader, "_PIECE_ROWS", 100)
    rows = bars(*((symbol, hours, hours + 1.0) for symbol in "AB" for hours in range(0, 5_000, 40)))
    await store.write("v", HOUR, rows)
    assert (await store.read("v", HOUR)).equals(rows.select(BAR_COLUMNS))
    newest = rows.sort("open_time", "symbol", descending=[True, False]).head(7).sort("symbol", "open_time")
    assert (await store.read("v", HOUR, limit=7)).equals(newest.select(BAR_COLUMNS))
    start, end = START + timedelta(hours=1_000), START + timedelta(hours=3_000)
    inside = rows.filter(pl.col("open_time").is_between(start, end, closed="left"))
    assert (await store.read("v", HOUR, start=start, end=end)).equals(inside.select(BAR_COLUMNS))


async def test_bars_that_ended_are_in_no_newest_view_and_stay_for_who_asks_before(store: BarStore, database: Database) -> None:
    panel = bars(("A", 0, 1.0), ("A", 1, 2.0), ("B", 0, 3.0))
    await store.write("v", HOUR, panel)
    await store.write("v", HOUR, panel.head(1).with_columns(volume=pl.lit(5.0)))  # a version before the one that ends
    version, before = (await store.month_sizes("v", HOUR))["2024-01"], datetime.now(UTC)
    newest = await store.read("v", HOUR)
    gone = newest.filter(symbol="A")
    assert await store.end("v", HOUR, gone.select("symbol", "open_time")) == gone.height
    assert await store.end("v", HOUR, gone.select("symbol", "open_time")) == 0
    left = newest.filter(pl.col("symbol") != "A")
    assert (await store.read("v", HOUR)).equals(left, null_equal=True)
    assert (await store.read("v", HOUR, as_of=datetime.now(UTC))).equals(left, null_equal=True)
    assert (await store.read("v", HOUR, as_of=before)).equals(newest, null_equal=True)
    assert await newest_rows(database, "v", HOUR, "A", limit=99) == []
    assert len(await newest_rows(database, "v", HOUR, "A", limit=99, as_of=before)) == gone.height
    assert await store.symbols("v", HOUR) == sorted(set(left["symbol"]))
    assert (await store.month_sizes("v", HOUR))["2024-01"] == (version[0] + 1, version[1] - gone.height)


async def test_what_left_is_looked_for_only_in_months_that_changed(store: BarStore, database: Database) -> None:
    panel = bars(("A", 0, 1.0), ("A", 5, 2.0), ("B", 5, 3.0), ("B", 700, 4.0))
    await store.write("v", HOUR, panel)
    async with database.transaction() as other:
        await other.execute("LOCK TABLE bars IN ACCESS EXCLUSIVE MODE")
        assert await gone_bars(database, "v", HOUR) is None
    left = panel.row(2, named=True)
    await store.end("v", HOUR, panel[2:3].select("symbol", "open_time"))
    async with database.transaction() as other:
        await other.execute("LOCK TABLE bars_2024_01 IN ACCESS EXCLUSIVE MODE")
        gone = await gone_bars(database, "v", HOUR)
    assert gone is not None
    assert (gone.bars, gone.symbols, gone.first, gone.last) == (1, ("B",), left["open_time"], left["open_time"])
    assert await gone_bars(database, "v", HOUR, ["A"]) is None
    await store.end("v", HOUR, panel[:1].select("symbol", "open_time"))
    everything = await gone_bars(database, "v", HOUR)
    assert everything is not None
    assert (everything.bars, everything.symbols, everything.first) == (2, ("A", "B"), panel["open_time"][0])
    await store.write("v", HOUR, panel)
    assert await gone_bars(database, "v", HOUR) is None


async def test_a_bar_that_comes_back_is_a_version_known_from_then(store: BarStore) -> None:
    panel = bars(("A", 0, 1.0), ("A", 1, 2.0), ("B", 0, 3.0))
    await store.write("v", HOUR, panel)
    sizes, back = await store.month_sizes("v", HOUR), panel.head(1)
    await store.end("v", HOUR, back.select("symbol", "open_time"))
    ended = datetime.now(UTC)
    written = await store.write("v", HOUR, panel)
    assert (written.inserted, written.unchanged, written.restated) == (0, panel.height - 1, 1)
    found = (await store.read("v", HOUR)).filter(symbol=back["symbol"][0], open_time=back["open_time"][0])
    assert found["close"].to_list() == back["close"].to_list()
    assert found["known_at"][0] >= ended
    assert (await store.read("v", HOUR, as_of=ended)).height == panel.height - 1
    assert (await store.month_sizes("v", HOUR))["2024-01"][1] == sizes["2024-01"][1]
    assert await store.symbols("v", HOUR) == sorted(set(panel["symbol"]))


async def test_an_action_that_was_withdrawn_or_changed_is_as_it_was_for_who_asks_before(store: BarStore) -> None:
    kept, changed, gone = (("A", "split", START + timedelta(days=day), 2.0, START + timedelta(days=day)) for day in range(3))
    other = ("B", "split", START, 2.0, START)
    await store.write_adjustments("v", actions(kept, changed, gone, other))
    before, now = datetime.now(UTC), (*changed[:3], 4.0, changed[4])
    whole = Mirrored(symbols=("A",))
    assert await store.write_adjustments("v", actions(kept, now), mirrored=whole) == Merged(0, 1, 1, 1)
    assert await store.write_adjustments("v", actions(kept, now), mirrored=whole) == Merged(unchanged=2)
    assert (await store.read_adjustments("v")).rows() == [kept, now, other]
    assert (await store.read_adjustments("v", as_of=before)).rows() == [kept, changed, gone, other]
    later = await store.read_adjustments("v", ("A",), as_of=datetime.now(UTC))
    assert later["value"].to_list() == [2.0, 4.0]
    assert later.rows() == [kept, now]  # as corrected history has it: a value that was told late counts from its ex day too
    assert await store.write_adjustments("v", actions(kept, now, gone), mirrored=whole) == Merged(inserted=1, unchanged=2)
    assert (await store.read_adjustments("v")).rows() == [kept, now, gone, other]
