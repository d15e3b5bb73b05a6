"""Strategies slot by slot: a step is a scan of one slot, and goes on from a state in another process as if nothing had been."""

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, TIME, day, instrument
from tests.strategies.weights import target_weights
from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Carried, Slots, Stepper, Strategy, Universe, closes, equal_shares
from tidemill.strategies.neutral import Neutral
from tidemill.strategies.registry import strategy
from tidemill.strategies.slots import book_slots

SYMBOLS = ("A", "B", "C", "D", "E", "F")
SLOTS = 40
PARAMS = {
    "quantile": {"quantile": 0.4, "every": 3, "max_weight": 1.0},
    "long_only_top_k": {"k": 2, "every": 2, "max_weight": 1.0},
    "inverse_volatility": {"window": 8, "least": 4, "every": 3, "quantile": 0.4, "max_weight": 1.0},
    "mean_variance": {"window": 8, "least": 4, "every": 9, "quantile": 0.4, "max_weight": 1.0, "refit": 2},
    "sma_cross": {"fast": 2, "slow": 5},
}
NEUTRAL = {
    "sector": NeutraliseSpec(by="sector", sectors={"A": "x", "B": "x", "C": "y", "D": "y"}),
    "beta": NeutraliseSpec(by="beta", window=8, least=4),
}
UNIVERSE = Universe(SYMBOLS, np.array([True, True, False, True, True, True]))


def slots(seed: int, *, slots: int = SLOTS) -> Slots:
    """A panel with late listings, halts, closed markets, unknown prices and rejected predictions."""
    random = np.random.default_rng(seed)
    shape = (slots, len(SYMBOLS))
    listed = np.arange(slots)[:, None] >= random.integers(0, slots // 2, len(SYMBOLS))
    present = listed & (random.random(shape) > 0.1)
    predicted = present & (random.random(shape) > 0.1)
    close = 50.0 * np.exp(np.cumsum(random.normal(0.0, 0.02, shape), axis=0))
    return Slots(
        number=np.arange(slots) - random.integers(0, 6) + np.cumsum(random.random(slots) < 0.1),
        own=present | (random.random(shape) > 0.3),
        predicted=predicted,
        prediction=np.where(predicted & (random.random(shape) > 0.1), random.normal(size=shape).round(1), np.nan),
        present=present,
        close=np.where(present & (random.random(shape) > 0.03), close, np.nan),
    )


def part(whole: Slots, start: int, stop: int) -> Slots:
    return Slots(*(np.ascontiguousarray(values[start:stop]) for values in whole if values is not None))


def reloaded(state: Carried) -> Carried:
    """Through bytes, as a fresh process finds it."""
    by_symbol = {name: np.frombuffer(kept.tobytes()).reshape(kept.shape) for name, kept in state.by_symbol.items()}
    whole = {name: np.frombuffer(kept.tobytes()).reshape(kept.shape) for name, kept in state.whole.items()}
    return Carried(tuple(state.symbols), by_symbol, whole)


def started(chosen: Strategy, name: str, universe: Universe, state: Carried | None = None) -> Stepper:
    assert chosen.start is not None
    return chosen.start(chosen.parse(PARAMS[name]), universe, state)


@pytest.mark.parametrize("name", PARAMS)
@given(seed=st.integers(0, 10_000), borders=st.sets(st.integers(1, SLOTS - 1), max_size=3))
@settings(max_examples=15, deadline=None)
def test_bar_by_bar_with_the_state_reloaded_equals_the_scan_to_the_bit(name: str, seed: int, borders: set[int]) -> None:
    whole, chosen = slots(seed), strategy(name)
    expected = started(chosen, name, UNIVERSE).scan(whole)
    stepper, made = started(chosen, name, UNIVERSE), []
    for slot in range(SLOTS):
        if slot in borders:
            stepper = started(chosen, name, UNIVERSE, reloaded(stepper.state()))
        made.append(stepper.scan(part(whole, slot, slot + 1)))
    assert np.concatenate(made).tobytes() == expected.tobytes()


@pytest.mark.parametrize("by", NEUTRAL)
@given(seed=st.integers(0, 10_000), border=st.integers(1, SLOTS - 1))
@settings(max_examples=15, deadline=None)
def test_neutralising_goes_on_from_its_state(by: str, seed: int, border: int) -> None:
    whole, random = slots(seed), np.random.default_rng(seed)
    asked = np.where(whole.present, random.normal(0.0, 0.1, whole.close.shape), np.nan)
    expected = Neutral(NEUTRAL[by], UNIVERSE).scan(asked, whole.close)
    neutral = Neutral(NEUTRAL[by], UNIVERSE)
    first = neutral.scan(asked[:border], whole.close[:border])
    rest = Neutral(NEUTRAL[by], UNIVERSE, reloaded(neutral.state())).scan(asked[border:], whole.close[border:])
    assert np.concatenate([first, rest]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", PARAMS)
def test_a_state_is_taken_to_another_universe_by_name(name: str) -> None:
    whole, chosen = slots(3), strategy(name)
    stepper = started(chosen, name, UNIVERSE)
    stepper.scan(part(whole, 0, 20))
    wider = Universe(("0", *SYMBOLS, "Z"), np.array([False, *UNIVERSE.can_short, False]))
    beside = [np.zeros((20, 1), bool), np.full((20, 1), np.nan)]
    rest = part(whole, 20, SLOTS)
    spread = rest._replace(
        **{
            field: np.hstack([beside[values.dtype != bool], values, beside[values.dtype != bool]])
            for field, values in rest._asdict().items()
            if values is not None and field != "number"
        }
    )
    found = started(chosen, name, wider, stepper.state()).scan(spread)
    assert np.isnan(found[:, [0, -1]]).all()
    assert found[:, 1:-1].tobytes() == stepper.scan(rest).tobytes()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_moving_average_cross_by_slots_is_that_of_whole_columns(seed: int) -> None:
    whole, chosen = slots(seed), strategy("sma_cross")
    rows = np.nonzero(whole.present.T)
    bars = pl.DataFrame(
        {
            "symbol": [SYMBOLS[at] for at in rows[0]],
            "open_time": pl.Series([day(int(at)) for at in rows[1]], dtype=TIME),
            "close": whole.close.T[rows],
        }
    )
    close, ends = closes(bars)
    share = equal_shares(rows[1][np.append(0, ends[:-1])], rows[1])
    assert chosen.signals is not None
    expected = chosen.signals(close, ends, chosen.parse(PARAMS["sma_cross"]), share)
    found = started(chosen, "sma_cross", UNIVERSE).scan(whole)
    assert np.array_equal(found.T[rows], expected, equal_nan=True)


FIVE = {"A": 5.0, "B": 4.0, "C": 3.0, "D": 2.0, "E": 1.0}


def predictions(days: list[int], *, hours: int = 0) -> pl.DataFrame:
    flat = [(symbol, day(at) + timedelta(hours=hours), value) for at in days for symbol, value in FIVE.items()]
    return pl.DataFrame(flat, schema={"symbol": pl.String, "open_time": TIME, "prediction": pl.Float64}, orient="row")


def rebalanced(days: list[int], named: str, **more: object) -> list[int]:
    market: Mapping[str, Instrument] = {symbol: instrument(symbol, calendar=named) for symbol in FIVE}
    weights = target_weights("quantile", predictions(days), {"every": 5}, market, **more)  # type: ignore[arg-type]
    return [(time - day(0)).days for time in weights["open_time"].unique().sort()]


def test_a_tail_of_the_history_rebalances_at_the_slots_of_the_whole() -> None:
    assert rebalanced(list(range(12)), ALWAYS, anchor=day(0)) == [0, 5, 10]
    assert rebalanced(list(range(3, 12)), ALWAYS, anchor=day(0)) == [5, 10]
    assert rebalanced(list(range(3, 12)), ALWAYS) == [3, 8]  # of itself alone
    assert rebalanced(list(range(12)), ALWAYS, anchor=day(7)) == [2, 7]


def test_a_gap_that_is_filled_later_moves_no_rebalancing() -> None:
    whole = list(range(16))
    assert rebalanced(whole, ALWAYS) == [0, 5, 10, 15]
    assert rebalanced([at for at in whole if at not in {3, 7, 8}], ALWAYS) == [0, 5, 10, 15]
    assert rebalanced([at for at in whole if at != 5], ALWAYS) == [0, 10, 15]  # missed, and not made good later


def test_a_stock_exchange_counts_its_sessions_also_one_that_the_data_lack() -> None:
    # Day 0 is Monday, 1 January 2024: closed. Days 5 and 6 are a weekend.
    sessions = [1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert rebalanced(sessions, XNYS) == [1, 8]
    assert rebalanced([at for at in sessions if at != 3], XNYS) == [1, 8]


def test_bars_that_are_stamped_at_another_hour_are_counted_as_they_are() -> None:
    market = {symbol: instrument(symbol, calendar=XNYS) for symbol in FIVE}
    _, _, found = book_slots(predictions([1, 2, 3, 4, 7, 8], hours=5), None, None, market, DAY, None)
    assert found.number.tolist() == [0, 1, 2, 3, 4, 5]
