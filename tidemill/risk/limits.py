"""Limits on what may be held: shares of equity a position and in all. They have defaults, can be set, and are never absent."""

from typing import NamedTuple

from tidemill.compiled import kernel
from tidemill.domain.errors import InputError


class Limits(NamedTuple):
    """Largest position and largest gross exposure (long plus short), each as a share of equity. The defaults are
    those of live trading.
    """

    max_position: float = 0.10
    max_gross: float = 1.00


# A research backtest takes the researcher's weights as they are, without leverage.
UNLEVERED = Limits(max_position=1.0, max_gross=1.0)


def checked_limits(limits: Limits) -> Limits:
    """`limits` unchanged if both are above 0 and finite, else InputError."""
    if not (0.0 < limits.max_position < float("inf") and 0.0 < limits.max_gross < float("inf")):
        raise InputError("Position and gross limits are shares of equity above 0, such as 0.1 and 1.0.")
    return limits


@kernel
def clip_position(target: float, equity: float, limits: Limits) -> float:
    """`target` (signed value in cash) cut to the largest position allowed."""
    ceiling = limits.max_position * equity
    return min(max(target, -ceiling), ceiling)


@kernel
def gross_scale(kept: float, added: float, equity: float, limits: Limits) -> float:
    """By which factor new exposure must shrink so that `kept + factor · added` stays within the gross limit; 1 if it
    does already.

    kept: gross exposure after all reductions. added: exposure that the orders would add. Reductions are never scaled.
    """
    room = limits.max_gross * equity - kept
    if added <= 0.0 or added <= room + 1e-9 * equity:
        return 1.0
    return max(room, 0.0) / added
