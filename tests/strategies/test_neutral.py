"""Neutral books: no bet on a sector or on the market is left, and nothing is traded that the strategy did not choose."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, TIME, day, instrument, weights
from tests.strategies.test_sizing import PARAMS, SHORT, SYMBOLS, market, returns_of, scores
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.strategies.neutral import neutralised, with_sectors
from tidemill.strategies.past import betas
from tidemill.strategies.registry import strategy, weigh

SECTORS = {symbol: ("tech", "bank", "oil")[number % 3] for number, symbol in enumerate(SYMBOLS)}
BY_SECTOR = NeutraliseSpec(by="sector", sectors=SECTORS)
BY_BETA = NeutraliseSpec(by="beta", window=40, least=20)
books = st.lists(st.floats(-0.2, 0.2), min_size=10, max_size=10)


def book(values: list[float]) -> pl.DataFrame:
    return weights([(symbol, 50, value) for symbol, value in zip(SYMBOLS, values, strict=True)])


@given(books)
@settings(deadline=None)
def test_in_each_sector_long_equals_short_and_no_position_grows(values: list[float]) -> None:
    before = book(values)
    after = neutralised(before, BY_SECTOR, SHORT, None, DAY).weights
    net = (
        after.with_columns(pl.col("symbol").replace_strict(SECTORS).alias("sector"))
        .group_by("sector")
        .agg(pl.col("weight").sum())
    )
    assert net["weight"].abs().max() < 1e-12  # type: ignore[operator]  # a float
    _only_smaller(before, after)


@given(books)
@settings(deadline=None, max_examples=25)
def test_the_beta_of_the_book_is_zero(values: list[float]) -> None:
    bars, before = market(), book(values)
    after = neutralised(before, BY_BETA, SHORT, bars, DAY).weights
    beta = betas(returns_of(bars)[11:51], 20)
    assert abs(float((after["weight"].to_numpy() * beta).sum())) < 1e-12
    _only_smaller(before, after)


def _only_smaller(before: pl.DataFrame, after: pl.DataFrame) -> None:
    old, new = before["weight"].to_numpy(), after["weight"].to_numpy()
    assert (np.abs(new) <= np.abs(old) + 1e-15).all()
    assert (old * new >= 0).all()


def test_a_long_only_book_gives_each_sector_its_share_of_the_symbols() -> None:
    after = neutralised(book([0.1, 0, 0, 0.1, 0, 0, 0.1, 0.1, 0, 0]), BY_SECTOR, {}, None, DAY).weights
    by = dict(after.group_by(pl.col("symbol").replace_strict(SECTORS)).agg(pl.col("weight").sum()).iter_rows())
    assert by["tech"] == pytest.approx(0.4 * 4 / 10)
    assert by["bank"] == pytest.approx(0.1)  # its one position does not grow beyond the largest
    assert by["oil"] == 0.0


def test_a_sector_with_one_side_alone_is_closed_and_said() -> None:
    after, notes = neutralised(book([0.1, -0.1, 0.1, -0.1, 0, 0, 0, 0, 0, 0]), BY_SECTOR, SHORT, None, DAY)
    assert after["weight"].to_list() == pytest.approx([0.1, 0, 0, -0.1] + [0] * 6)
    assert notes == ("2 times a sector was closed, since one of its sides alone cannot be neutral.",)


def test_null_asks_for_nothing_and_stays_null() -> None:
    before = weights([("A", 1, 0.1), ("D", 1, None), ("G", 1, -0.2)])
    assert neutralised(before, BY_SECTOR, SHORT, None, DAY).weights["weight"].to_list() == pytest.approx([0.1, None, -0.1])


def test_it_follows_every_strategy_and_looks_at_the_past_alone() -> None:
    bars = market()
    for name in ("quantile", "long_only_top_k", "inverse_volatility", "mean_variance", "sma_cross"):
        over_bars = strategy(name).needs == "bars"
        params = PARAMS if strategy(name).needs == "both" else {}
        inputs = bars if over_bars else scores(bars)
        whole = weigh(name, inputs, params, SHORT, DAY, bars=bars, neutralise=BY_BETA).weights
        cut = pl.col("open_time") <= day(60)
        early = weigh(name, inputs.filter(cut), params, SHORT, DAY, bars=bars.filter(cut), neutralise=BY_BETA).weights
        assert early.equals(whole.filter(cut))


def test_what_cannot_be_neutral_is_refused() -> None:
    with pytest.raises(InputError, match="sold short"):
        neutralised(book([0.1] * 10), BY_BETA, {"A": instrument("A")}, market(), DAY)
    with pytest.raises(InputError, match="needs `sectors`"):
        neutralised(book([0.1] * 10), NeutraliseSpec(by="sector"), SHORT, None, DAY)
    with pytest.raises(InputError, match="bars"):
        neutralised(book([0.1] * 10), BY_BETA, SHORT, None, DAY)
    with pytest.raises(InputError, match="least"):
        neutralised(book([0.1] * 10), NeutraliseSpec(by="beta", window=5, least=9), SHORT, market(), DAY)


def test_sectors_are_read_from_a_table() -> None:
    table = pl.DataFrame({"symbol": ["A", "B"], "sector": ["x", "y"]})
    assert with_sectors(NeutraliseSpec(by="sector", sector_file="f"), table).sectors == {"A": "x", "B": "y"}
    with pytest.raises(InputError, match="lacks the column sector"):
        with_sectors(BY_SECTOR, table.drop("sector"))
    with pytest.raises(InputError, match="more than once"):
        with_sectors(BY_SECTOR, pl.concat([table, table]))
    assert weights([("A", 1, 0.1)]).schema["open_time"] == TIME
