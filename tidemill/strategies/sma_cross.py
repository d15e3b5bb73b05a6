"""The moving-average cross (NUMBERS, Fills and accounts): all in, long or flat.

Long from the bar at whose close the mean of the last `fast` closes lies above the mean of the last `slow`, flat from
the bar at which it does not; equal means flat. Windows count the symbol's own bars; before there are `slow` of them
nothing is asked. Each symbol works with 1/n of equity, taken when it enters, n being the symbols that have had a bar by then;
in between the position is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from tidemill.strategies.base import Carried, Slots, Strategy, Universe, carried, require, unasked

if TYPE_CHECKING:
    from tidemill.strategies.base import Floats, Indices


class SmaCrossParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lengths of the two means in bars, fast < slow."""

    fast: int = 10
    slow: int = 30

    def __post_init__(self) -> None:
        require(1 <= self.fast < self.slow <= 10_000, "fast must be at least 1 and below slow, and slow at most 10,000")


class _Stepper:
    notes: tuple[str, ...] = ()

    def __init__(self, params: SmaCrossParams, universe: Universe, state: Carried | None) -> None:
        import numpy as np

        self._params, self._symbols = params, universe.symbols
        self._past = np.ascontiguousarray(carried(state, "past", universe.symbols, np.nan, (params.slow,)).T)
        self._bars = carried(state, "bars", universe.symbols, 0.0).astype(np.int64)

    def scan(self, slots: Slots) -> Floats:
        from tidemill.strategies.sma_kernel import cross_slots

        weights = unasked(slots)
        cross_slots(slots.close, slots.present, self._past, self._bars, self._params.fast, self._params.slow, weights)
        return weights

    def state(self) -> Carried:
        return Carried(self._symbols, {"past": self._past.T.copy(), "bars": self._bars.astype(float)})


def _signals(close: Floats, ends: Indices, params: SmaCrossParams, share: Floats) -> Floats:
    from tidemill.strategies.sma_kernel import cross_signals

    return cross_signals(close, ends, params.fast, params.slow, share)


def _grid(
    close: Floats, ends: Indices, grid: Sequence[SmaCrossParams], share: Floats, spread: Callable[[Floats], Floats]
) -> Iterator[Floats]:
    from tidemill.strategies.sma_kernel import cross_grid

    return cross_grid(close, ends, [(params.fast, params.slow) for params in grid], share, spread)


STRATEGY = Strategy(
    name="sma_cross",
    about="Hold a symbol while its fast moving average lies above its slow one.",
    needs="bars",
    params=SmaCrossParams,
    start=_Stepper,
    resize=False,
    signals=_signals,
    grid=_grid,
)
