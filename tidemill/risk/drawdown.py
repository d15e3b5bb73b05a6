"""The drawdown policy: what an account may do after it has lost a stated share of its highest equity. One step, for
backtest and live alike.

Levels (NUMBERS, Drawdown): at `block` nothing may be added; at `reduce` exposure is also cut to half of what it was
when the level was reached; at `flatten` everything is closed. A level is released by the operator, or after
`calm_bars` bars in a row with a drawdown below half of that level. After a flatten equity stands still, so only the
operator or the calm rule for a smaller loss can release it: that is intended.
"""

from typing import NamedTuple

from tidemill.compiled import kernel
from tidemill.domain.errors import InputError

NORMAL, BLOCK, REDUCE, FLATTEN = 0, 1, 2, 3
ACTIONS = ("normal", "block", "reduce", "flatten")


class DrawdownPolicy(NamedTuple):
    """Levels as shares of the high-water mark, and how long calm must last before a level is released."""

    block: float = 0.010
    reduce: float = 0.015
    flatten: float = 0.020
    reduce_to: float = 0.5
    calm_bars: int = 20


class DrawdownState(NamedTuple):
    """high_water: highest equity, net of transfers. action: the level in force. calm: bars in a row below half of it.
    gross_cap: in cash, while reducing.
    """

    high_water: float
    action: int = NORMAL
    calm: int = 0
    gross_cap: float = 0.0


def checked_policy(policy: DrawdownPolicy) -> DrawdownPolicy:
    """`policy` unchanged if its levels rise from block to flatten, else InputError."""
    if not 0.0 < policy.block <= policy.reduce <= policy.flatten <= 1.0:
        raise InputError("Drawdown levels must rise: 0 < block ≤ reduce ≤ flatten ≤ 1, such as 0.01, 0.015 and 0.02.")
    if not (0.0 <= policy.reduce_to < 1.0 and policy.calm_bars >= 1):
        raise InputError("`reduce_to` must be at least 0 and below 1, and `calm_bars` at least 1.")
    return policy


@kernel
def drawdown_level(drawdown: float, policy: DrawdownPolicy) -> int:
    """The level that `drawdown` (a share, ≥ 0) reaches by itself."""
    slack = 1e-12  # 990 / 1000 is a drawdown of one percent, whatever its last bit
    if drawdown >= policy.flatten - slack:
        return FLATTEN
    if drawdown >= policy.reduce - slack:
        return REDUCE
    if drawdown >= policy.block - slack:
        return BLOCK
    return NORMAL


@kernel
def drawdown_from(mark: float, equity: float) -> float:
    """What is lost from a highest equity, as a share of it; all where there never was any."""
    return 1.0 - equity / mark if mark > 0.0 else 1.0


@kernel
def threshold(action: int, policy: DrawdownPolicy) -> float:
    """The drawdown at which `action` begins; 0 for NORMAL."""
    if action == FLATTEN:
        return policy.flatten
    if action == REDUCE:
        return policy.reduce
    return policy.block if action == BLOCK else 0.0


@kernel
def drawdown_step(
    state: DrawdownState, equity: float, gross: float, transfer: float, stale: bool, policy: DrawdownPolicy
) -> DrawdownState:
    """The state after one bar.

    equity, gross: at the close, in cash. transfer: cash paid in (+) or out (−) since the last step; it moves the mark
    with the equity and is no drawdown. stale: some price is not fresh; then equity is not trusted and no level
    changes (see `action_in_force`).
    """
    mark = state.high_water + transfer
    if stale:
        return DrawdownState(mark, state.action, state.calm, state.gross_cap)
    mark = max(mark, equity)
    drawdown = drawdown_from(mark, equity)
    level = drawdown_level(drawdown, policy)
    if level > state.action:
        cap = policy.reduce_to * gross if level >= REDUCE and state.action < REDUCE else state.gross_cap
        return DrawdownState(mark, level, 0, cap)
    calm = state.calm + 1 if drawdown < 0.5 * threshold(state.action, policy) else 0
    if state.action != NORMAL and calm >= policy.calm_bars:
        return DrawdownState(mark, level, 0, 0.0)
    return DrawdownState(mark, state.action, calm, state.gross_cap)


@kernel
def action_in_force(state: DrawdownState, stale: bool) -> int:
    """What binds this bar: a stale price blocks, for as long as it is stale, and never reduces or flattens by itself."""
    return max(state.action, BLOCK) if stale else state.action


def released(state: DrawdownState, equity: float) -> DrawdownState:
    """The operator lets trading go on: the mark starts again from `equity`."""
    return DrawdownState(equity)
