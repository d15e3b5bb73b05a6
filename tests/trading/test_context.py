"""What is known beside bars, slot by slot, equals what is joined to whole frames."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.domain.intervals import Interval
from tidemill.features.expression import FEAR_GREED, SENTIMENT
from tidemill.features.sentiment import sentiment
from tidemill.market.fear_greed import as_known, join_known
from tidemill.trading.context import Context, ContextState, IndexVersion

START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOLS, SLOTS = ("A", "B"), 30
TIME = pl.Datetime("us", "UTC")


def moment(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@given(seed=st.integers(0, 100_000), border=st.integers(1, SLOTS - 1), hours=st.sampled_from([6, 24]))
@settings(max_examples=80, deadline=None)
def test_slot_by_slot_equals_the_joins_of_whole_frames(seed: int, border: int, hours: int) -> None:
    random = np.random.default_rng(seed)
    interval = Interval.parse(f"{hours}h" if hours < 24 else "1d")
    present = random.random((SLOTS, len(SYMBOLS))) < 0.8
    rows = [(symbol, moment(at * hours)) for k, symbol in enumerate(SYMBOLS) for at in range(SLOTS) if present[at, k]]
    bars = pl.DataFrame(rows, schema={"symbol": pl.String, "open_time": TIME}, orient="row")
    days = [day for day in range(-9, 30) if random.random() < 0.7]
    versions = [
        (moment(24 * day), float(random.integers(0, 100)), moment(24 * (day + 1) + late))
        for day in days
        for late in ((0.0, float(random.integers(1, 200))) if random.random() < 0.3 else (0.0,))
    ]
    table = pl.DataFrame(versions, schema={"stamp": TIME, "value": pl.Float64, "known_at": TIME}, orient="row")
    news = [
        (SYMBOLS[random.integers(2)], moment(float(random.uniform(0, SLOTS * hours))), float(random.uniform(-1, 1)))
        for _ in range(40)
    ]
    items = pl.DataFrame(news, schema={"symbol": pl.String, "known_at": TIME, "score": pl.Float64}, orient="row")
    expected = join_known(bars, as_known(table), interval).join(
        sentiment(bars, items, interval.delta, half_life=3.0)[0], on=("symbol", "open_time"), maintain_order="left"
    )

    context, made, before = Context(SYMBOLS, 3.0), [], moment(-10_000)
    told = table.sort("known_at", "stamp")
    heard = items.sort("known_at")
    for at in range(SLOTS):
        if at == border:
            kept = msgspec.msgpack.encode(context.state())  # JSON has no NaN
            context = Context(SYMBOLS, 3.0, msgspec.msgpack.decode(kept, type=ContextState))
        closed = moment((at + 1) * hours)
        new = (pl.col("known_at") > before) & (pl.col("known_at") <= closed)
        found = context.step(
            micros(closed),
            present[at],
            [IndexVersion(micros(stamp), value, micros(known)) for stamp, value, known in told.filter(new).iter_rows()],
            heard.filter(new).select("symbol", "score").iter_rows(),
        )
        before = closed
        for k, symbol in enumerate(SYMBOLS):
            if present[at, k]:
                values = [np.broadcast_to(found[name], len(SYMBOLS))[k] for name in (*FEAR_GREED, *SENTIMENT)]
                made.append((symbol, moment(at * hours), *map(float, values)))
    answer = pl.DataFrame(made, schema=expected.schema, orient="row").sort("symbol", "open_time")
    assert answer.equals(expected.sort("symbol", "open_time"), null_equal=True)
