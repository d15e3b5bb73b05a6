"""Adjusting bar by bar equals adjusting whole columns, to the bit, however late an action is told."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.domain.intervals import epoch_microseconds
from tidemill.market.adjusting import COLUMNS, Adjuster
from tidemill.market.adjustments import ADJUSTMENT_SCHEMA, adjust
from tidemill.market.told import told_actions

START = datetime(2021, 1, 4, tzinfo=UTC)
SYMBOLS = ("A", "B", "C")
SLOTS = 25


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def bars(seed: int) -> pl.DataFrame:
    """Late listings, halts, unknown closes."""
    random = np.random.default_rng(seed)
    rows = []
    for symbol in SYMBOLS:
        first = int(random.integers(0, 10))
        for at in range(first, SLOTS):
            if random.random() < 0.15:
                continue
            price = float(random.uniform(20.0, 30.0))
            close = None if random.random() < 0.1 else price
            rows.append((symbol, day(at), price, price + 1.0, price - 1.0, close, 1e6, 1e6 * price, day(at + 1)))
    schema = {"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), **dict.fromkeys(COLUMNS, pl.Float64)}
    return pl.DataFrame(rows, schema={**schema, "known_at": pl.Datetime("us", "UTC")}, orient="row")


actions = st.lists(
    st.tuples(
        st.sampled_from(SYMBOLS), st.sampled_from([("split", 2.0), ("split", 0.25), ("dividend", 0.37), ("dividend", 1.1)]),
        st.integers(0, SLOTS), st.integers(-3, 8),
    ),
    max_size=8, unique_by=lambda row: (row[0], row[1][0], row[2], row[3]),
)  # fmt: skip


@given(seed=st.integers(0, 10_000), rows=actions, border=st.integers(1, SLOTS - 1))
@settings(max_examples=150, deadline=None)
def test_bar_by_bar_equals_whole_columns_and_a_state_goes_on(
    seed: int, rows: list[tuple[str, tuple[str, float], int, int]], border: int
) -> None:
    panel = bars(seed)
    known = [(symbol, kind, day(at), value, day(at + later)) for symbol, (kind, value), at, later in rows]
    table = pl.DataFrame(known, schema=ADJUSTMENT_SCHEMA, orient="row")
    expected = adjust(panel, table)
    told, adjuster, made = told_actions(panel, table), Adjuster(SYMBOLS), []
    for slot in (day(at) for at in range(SLOTS)):
        if slot == day(border):
            adjuster = Adjuster(SYMBOLS, adjuster.state())
        own = {row["symbol"]: row for row in panel.filter(open_time=slot).iter_rows(named=True)}
        values = np.array(
            [[np.nan if symbol not in own or own[symbol][name] is None else own[symbol][name] for symbol in SYMBOLS]
             for name in COLUMNS]
        )  # fmt: skip
        present = np.array([symbol in own for symbol in SYMBOLS])
        answer = adjuster.step(epoch_microseconds(slot), values, present, told.get(slot, ()))
        made.extend((symbol, slot, *answer[:, at]) for at, symbol in enumerate(SYMBOLS) if present[at])
    found = pl.DataFrame(made, schema=expected.select("symbol", "open_time", *COLUMNS).schema, orient="row")
    found = found.sort("symbol", "open_time").with_columns(pl.col(COLUMNS).fill_nan(None))
    assert found.equals(expected.select(found.columns))
