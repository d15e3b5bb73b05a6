"""Sentiment as columns of bars: what was known at the close, by hand, under truncation, in stretches and in any order."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.domain.errors import InputError, IntegrityError
from tidemill.features.api import FeatureStream, compute, feature_set
from tidemill.features.expression import SENTIMENT
from tidemill.features.sentiment import Mood, SentimentState, sentiment

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
Item = tuple[str, float, float]


def bars(days: dict[str, list[int]]) -> pl.DataFrame:
    """A daily bar of each symbol on each of its days."""
    rows = [(symbol, START + day * DAY) for symbol in sorted(days) for day in sorted(days[symbol])]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC")}, orient="row")


def news(*items: Item) -> pl.DataFrame:
    """(symbol, days since the start at which it was known, score)."""
    rows = [(symbol, START + day * DAY, score) for symbol, day, score in items]
    schema = {"symbol": pl.String, "known_at": pl.Datetime("us", "UTC"), "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def columns(frame: pl.DataFrame, items: pl.DataFrame, half_life: float = 1.0) -> list[tuple[float, ...]]:
    return sentiment(frame, items, DAY, half_life=half_life)[0].select(SENTIMENT).rows()


def test_the_columns_are_those_of_the_formulas() -> None:
    """Half-life of one bar: everything before counts half."""
    made = columns(bars({"A": [0, 1, 2, 3]}), news(("A", 0.5, 0.8), ("A", 1.2, -0.4), ("A", 1.9, -1.0)))
    assert made[0] == pytest.approx((0.8 / 2, 1.0, 0.8))
    assert made[1] == pytest.approx(((0.4 - 1.4) / 3.5, 2.5, -0.7 - 0.4))
    assert made[2] == pytest.approx((-0.5 / 2.25, 1.25, 0.0))
    assert made[3] == pytest.approx((-0.25 / 1.625, 0.625, 0.0))


def test_an_item_that_is_known_at_the_close_counts_and_one_a_microsecond_later_does_not() -> None:
    later = 1.0 + 1e-6 / 86_400
    at, after = columns(bars({"A": [0]}), news(("A", 1.0, 1.0))), columns(bars({"A": [0]}), news(("A", later, 1.0)))
    assert at[0] == (0.5, 1.0, 1.0)
    assert np.isnan(after[0]).all()


def test_what_becomes_known_while_a_symbol_does_not_trade_waits_for_its_next_bar() -> None:
    made = columns(bars({"A": [0, 5], "B": [0, 1, 2, 3, 4, 5]}), news(("A", 0.5, 1.0), ("A", 3.3, -1.0), ("B", 9.0, 1.0)))
    assert made[1] == pytest.approx((-0.5 / 2.5, 1.5, -1.5))
    assert np.isnan(made[2:]).all()


def test_before_the_first_item_of_a_symbol_nothing_is_known_and_afterwards_old_news_fades_to_neutral() -> None:
    made = columns(bars({"A": list(range(60))}), news(("A", 2.5, 1.0)))
    assert all(math.isnan(value) for row in made[:2] for value in row)
    assert [row[0] for row in made[2:]] == sorted((row[0] for row in made[2:]), reverse=True)
    assert 0.0 < made[-1][0] < 1e-12


def test_items_without_a_score_count_for_nothing() -> None:
    frame = bars({"A": [0, 1]})
    rows = news(("A", 0.5, 0.5), ("A", 0.6, math.nan), ("A", 0.7, math.inf))
    silent = rows.with_columns(pl.when(pl.int_range(3) == 1).then(None).otherwise(pl.col("score")).alias("score"))
    assert columns(frame, silent) == columns(frame, news(("A", 0.5, 0.5)))


symbols = st.sampled_from(["A", "B", "C"])
items = st.lists(st.tuples(symbols, st.floats(-1.0, 13.0), st.floats(-1.0, 1.0)), max_size=40)
panels = st.dictionaries(symbols, st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True), min_size=1, max_size=3)


@given(panels, items, st.integers(0, 12))
@settings(max_examples=60)
def test_what_follows_a_cut_changes_no_bit_before_it(days: dict[str, list[int]], rows: list[Item], cut: int) -> None:
    frame, known = bars(days), news(*rows)
    moment = START + cut * DAY
    inside = pl.col("open_time") + DAY <= moment
    whole = sentiment(frame, known, DAY, half_life=3.0)[0].filter(inside)
    turned = news(*((symbol, day, -score if day > cut else score) for symbol, day, score in rows))
    for later in (known.filter(pl.col("known_at") <= moment), turned):
        assert sentiment(frame.filter(inside), later, DAY, half_life=3.0)[0].equals(whole)


@given(panels, items, st.integers(0, 12), st.randoms())
@settings(max_examples=60)
def test_stretch_by_stretch_with_a_stored_state_gives_the_bits_of_the_whole(
    days: dict[str, list[int]], rows: list[Item], cut: int, chance: "np.random.Generator"
) -> None:
    frame = bars(days)
    whole, after = sentiment(frame, news(*rows), DAY, half_life=3.0)
    shuffled = rows.copy()
    chance.shuffle(shuffled)  # type: ignore[arg-type]  # a list
    early = pl.col("open_time") < START + cut * DAY
    first, state = sentiment(frame.filter(early), news(*shuffled), DAY, half_life=3.0)
    restored = SentimentState.from_bytes(state.to_bytes())
    second, end = sentiment(frame.filter(~early), news(*shuffled), DAY, half_life=3.0, state=restored)
    assert pl.concat([first, second]).sort("symbol", "open_time").equals(whole)
    assert end.moods == after.moods


@given(panels, items)
@settings(max_examples=40)
def test_a_symbol_alone_has_the_bits_that_it_has_among_others(days: dict[str, list[int]], rows: list[Item]) -> None:
    whole = sentiment(bars(days), news(*rows), DAY, half_life=2.0)[0]
    for symbol in days:
        alone = sentiment(bars({symbol: days[symbol]}), news(*rows), DAY, half_life=2.0)[0]
        assert alone.equals(whole.filter(pl.col("symbol") == symbol))


def test_the_set_carries_the_columns_through_batch_and_stream_alike() -> None:
    frame = bars({"A": [0, 1, 2], "B": [0, 1, 2]})
    known = sentiment(frame, news(("A", 0.5, 0.3), ("B", 1.5, -0.2)), DAY, half_life=2.0)[0]
    prices = [pl.lit(value).alias(name) for name, value in (("open", 1.0), ("high", 2.0), ("low", 1.0), ("close", 1.5))]
    given_bars = known.with_columns(*prices, pl.lit(10.0).alias("volume"))
    features = feature_set("sentiment")
    batch, _ = compute(given_bars, features)
    stream = FeatureStream(features, ("A", "B"))
    for day in range(3):
        row = given_bars.filter(pl.col("open_time") == START + day * DAY)
        context = {name: row[name].to_numpy() for name in SENTIMENT}
        prices_of = [row[name].to_numpy() for name in ("open", "high", "low", "close", "volume")]
        made = stream.step(*prices_of, open_time=START + day * DAY, context=context)
        expected = batch.filter(pl.col("open_time") == START + day * DAY).select(features.names).to_numpy()
        assert np.array_equal(made, expected, equal_nan=True)
        assert np.array_equal(made, row.select(SENTIMENT).to_numpy(), equal_nan=True)


@pytest.mark.parametrize("half_life", [0.0, -1.0, math.inf, math.nan])
def test_a_half_life_that_is_none_is_refused(half_life: float) -> None:
    with pytest.raises(InputError, match="half-life"):
        sentiment(bars({"A": [0]}), news(), DAY, half_life=half_life)


def test_a_state_of_another_half_life_or_a_damaged_one_is_refused() -> None:
    with pytest.raises(InputError, match="half-life"):
        sentiment(bars({"A": [0]}), news(), DAY, half_life=2.0, state=SentimentState(3.0, {"A": Mood()}))
    for data in (b"", b"{}", b"[1]", b'{"half_life": "x"}'):
        with pytest.raises(IntegrityError, match="damaged"):
            SentimentState.from_bytes(data)
