"""Rounding and the fills of one bar, through small compiled doors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from tidemill.calendars import ALWAYS
from tidemill.domain.errors import InputError
from tidemill.domain.market import Instrument
from tidemill.matching import kernel
from tidemill.matching.rules import MatchingRules, checked_rules, venue_row


@njit
def whole_lots(quantity: float, lot: float) -> float:
    return kernel.whole_lots(quantity, lot)


@njit
def price_on_tick(price: float, tick: float, side: float) -> float:
    return kernel.price_on_tick(price, tick, side)


def test_quantities_round_down_to_lots_and_what_is_a_multiple_stays() -> None:
    assert whole_lots(0.3, 0.1) == pytest.approx(0.3)
    assert whole_lots(0.29, 0.1) == pytest.approx(0.2)
    assert whole_lots(7.9, 1.0) == 7.0
    assert whole_lots(0.123456, 0.0) == 0.123456


@given(st.integers(0, 10**9), st.sampled_from([1e-8, 1e-5, 0.001, 0.1, 1.0, 100.0]))
def test_any_multiple_of_the_lot_is_itself(count: int, lot: float) -> None:
    assert whole_lots(count * lot, lot) == pytest.approx(count * lot, rel=1e-12)


@given(st.floats(0.0, 1e9), st.sampled_from([1e-8, 1e-5, 0.001, 0.1, 1.0, 100.0]))
def test_rounding_to_lots_never_gains_and_loses_less_than_a_lot(quantity: float, lot: float) -> None:
    rounded = whole_lots(quantity, lot)
    slack = 1e-8 * lot + 1e-12 * quantity
    assert -slack <= quantity - rounded <= lot + slack


def test_prices_round_against_us_and_never_to_zero() -> None:
    assert price_on_tick(10.301, 0.05, 1.0) == pytest.approx(10.35)
    assert price_on_tick(10.349, 0.05, -1.0) == pytest.approx(10.30)
    assert price_on_tick(10.30, 0.05, 1.0) == pytest.approx(10.30)
    assert price_on_tick(0.0000099, 0.00001, -1.0) == pytest.approx(0.00001)
    assert price_on_tick(1.23456, 0.0, 1.0) == 1.23456


def test_an_instrument_that_is_not_known_is_long_only_in_any_fraction() -> None:
    known = Instrument(venue="v", symbol="B", calendar=ALWAYS, can_short=True, lot=0.1, borrow_bps=50.0)
    row = venue_row(("A", "B"), {"B": known})
    np.testing.assert_array_equal(row.can_short, [False, True])
    np.testing.assert_array_equal(row.lot, [0.0, 0.1])
    np.testing.assert_allclose(row.borrow_rate, [0.0, 0.005])


@pytest.mark.parametrize(
    "rules",
    [
        MatchingRules(fee_rate=1.0),
        MatchingRules(slippage_rate=-0.1),
        MatchingRules(participation=1.5),
        MatchingRules(reserve=-0.1),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: MatchingRules) -> None:
    with pytest.raises(InputError):
        checked_rules(rules)


def test_rules_that_make_sense_pass() -> None:
    assert checked_rules(MatchingRules()).participation == 0.10
