"""Limits on what may be held, as shares of equity: one position, all, one side. They have defaults and are never absent."""

from typing import NamedTuple

from tidemill.compiled import kernel
from tidemill.domain.errors import InputError


class Limits(NamedTuple):
    """Largest position, largest gross exposure (long plus short) and largest net exposure (long minus short, either way), each
    as a share of equity. The defaults are those of live trading.
    """

    max_position: float = 0.10
    max_gross: float = 1.00
    max_net: float = 1.00


# A research backtest takes the researcher's weights as they are, without leverage.
UNLEVERED = Limits(max_position=1.0, max_gross=1.0, max_net=1.0)


def checked_limits(limits: Limits) -> Limits:
    """`limits` unchanged if all are above 0 and finite, else InputError."""
    if not all(0.0 < limit < float("inf") for limit in limits):
        raise InputError("Position, gross and net limits are shares of equity above 0, such as 0.1, 1.0 and 1.0.")
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


@kernel
def net_scale(kept: float, added: float, against: float, equity: float, limits: Limits) -> float:
    """By which factor new exposure of one side must shrink so that the net exposure stays within its limit; 1 if it does.

    kept: net exposure towards that side after all reductions. added: exposure that the orders would add to it. against: what
    they would add to the other side, which makes room. Reductions are never scaled.
    """
    room = limits.max_net * equity - kept + against
    if added <= 0.0 or added <= room + 1e-9 * equity:
        return 1.0
    return max(room, 0.0) / added
