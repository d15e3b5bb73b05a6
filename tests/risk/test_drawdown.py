"""The drawdown policy as a step, and the limits."""

import pytest
from numba import njit

from tidemill.domain.errors import InputError
from tidemill.risk import drawdown, limits
from tidemill.risk.drawdown import BLOCK, FLATTEN, NORMAL, REDUCE, DrawdownPolicy, DrawdownState, checked_policy, released
from tidemill.risk.limits import Limits, checked_limits

DEFAULT = DrawdownPolicy()


@njit
def step(
    state: DrawdownState, equity: float, gross: float, transfer: float, stale: bool, policy: DrawdownPolicy
) -> DrawdownState:
    return drawdown.drawdown_step(state, equity, gross, transfer, stale, policy)


@njit
def in_force(state: DrawdownState, stale: bool) -> int:
    return drawdown.action_in_force(state, stale)


@njit
def scale(kept: float, added: float, equity: float, given: Limits) -> float:
    return limits.gross_scale(kept, added, equity, given)


def walk(equities: list[float], policy: DrawdownPolicy = DEFAULT) -> list[int]:
    state, actions = DrawdownState(1_000.0), []
    for equity in equities:
        state = step(state, float(equity), 500.0, 0.0, False, policy)
        actions.append(state.action)
    return actions


def test_the_defaults_block_at_one_reduce_at_one_and_a_half_and_flatten_at_two_percent() -> None:
    assert walk([1_000, 991, 990, 986, 985, 981, 980]) == [NORMAL, NORMAL, BLOCK, BLOCK, REDUCE, REDUCE, FLATTEN]


def test_a_level_holds_until_calm_has_lasted_below_half_of_it() -> None:
    policy = DrawdownPolicy(calm_bars=3)
    assert walk([990, 999, 999, 994, 999, 999, 999], policy) == [BLOCK] * 6 + [NORMAL]


def test_a_new_high_raises_the_mark() -> None:
    assert walk([1_100, 1_090, 1_089]) == [NORMAL, NORMAL, BLOCK]


def test_the_cap_of_a_reduction_is_half_of_the_exposure_when_it_began() -> None:
    state = step(DrawdownState(1_000.0), 985.0, 800.0, 0.0, False, DEFAULT)
    assert (state.action, state.gross_cap) == (REDUCE, 400.0)
    assert step(state, 984.0, 400.0, 0.0, False, DEFAULT).gross_cap == 400.0


def test_transfers_move_the_mark_and_are_no_drawdown() -> None:
    state = step(DrawdownState(1_000.0), 500.0, 0.0, -500.0, False, DEFAULT)
    assert (state.action, state.high_water) == (NORMAL, 500.0)


def test_a_stale_price_blocks_while_it_is_stale_and_never_flattens() -> None:
    state = step(DrawdownState(1_000.0), 10.0, 500.0, 0.0, True, DEFAULT)
    assert state.action == NORMAL
    assert (in_force(state, True), in_force(state, False)) == (BLOCK, NORMAL)
    flat = DrawdownState(1_000.0, FLATTEN)
    assert in_force(flat, True) == FLATTEN


def test_the_operator_releases_with_a_new_mark() -> None:
    assert released(DrawdownState(1_000.0, FLATTEN), 980.0) == DrawdownState(980.0, NORMAL)


@pytest.mark.parametrize(
    "policy",
    [
        DrawdownPolicy(block=0.02, reduce=0.01),
        DrawdownPolicy(flatten=1.5),
        DrawdownPolicy(reduce_to=1.0),
        DrawdownPolicy(calm_bars=0),
    ],
)
def test_a_policy_whose_levels_do_not_rise_is_refused(policy: DrawdownPolicy) -> None:
    with pytest.raises(InputError):
        checked_policy(policy)


def test_limits_ship_with_defaults_and_refuse_nonsense() -> None:
    assert checked_limits(Limits()) == (0.10, 1.0, 1.0)
    with pytest.raises(InputError):
        checked_limits(Limits(0.1, float("nan")))


def test_new_exposure_shrinks_to_the_room_that_is_left() -> None:
    assert scale(0.0, 1_000.0, 1_000.0, Limits()) == 1.0
    assert scale(500.0, 1_000.0, 1_000.0, Limits()) == 0.5
    assert scale(1_200.0, 100.0, 1_000.0, Limits()) == 0.0
    assert scale(1_200.0, 0.0, 1_000.0, Limits()) == 1.0
