"""Sizing by risk what predictions chose: what `inverse_volatility` and `mean_variance` share.

Both choose as `quantile` does and estimate from the last `window` bars up to the rebalancing time, that bar included and
nothing later. A chosen symbol with fewer than `least` returns there (a late listing), or without any spread, is left out;
what has no prediction any more (a dead symbol) gets 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from tidemill.strategies.base import Carried, Slots, Universe, require, unasked
from tidemill.strategies.ranking import slot_predictions, standing_of, standing_state

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tidemill.strategies.past import Floats
    from tidemill.strategies.ranking_kernel import SlotPredictions


def require_window(window: int, least: int) -> None:
    """What holds for the past that risk is estimated from; as `require`."""
    require(2 <= least <= window <= 10_000, "least must be at least 2 and at most window, window at most 10,000")


class Choice(NamedTuple):
    """What was ranked at one rebalancing slot; arrays over all symbols. number: of the slot since the anchor.

    score: rank with mean 0 and deviation 1, NaN without a prediction. both: whether anything can be short.
    """

    number: int
    listed: NDArray[np.bool_]
    side: Floats
    score: Floats
    both: bool

    def budget(self, gross: float) -> float:
        """Of each side."""
        return gross / 2.0 if self.both else gross


class SizedStepper(ABC):
    """A strategy that chooses by rank and sizes by what bars say; `size` gives the weights of what was chosen."""

    def __init__(self, params: Any, universe: Universe, state: Carried | None) -> None:
        from tidemill.strategies.past import PastReturns

        self._params, self._universe, self._standing = params, universe, standing_of(universe, state)
        self.past = PastReturns(universe.symbols, params.window, state)
        self.unknown = 0

    @property
    def notes(self) -> tuple[str, ...]:
        return left_out(self.unknown, self._params.least)

    @abstractmethod
    def size(self, choice: Choice) -> Floats:
        """Weights of all symbols."""

    def scan(self, slots: Slots) -> Floats:
        weights, read = unasked(slots), slot_predictions(slots)
        for slot, close in enumerate(slots.close):
            self.past.push(close)
            choice = self._choice(read, slot)
            if choice is not None:
                weights[slot, choice.listed] = self.size(choice)[choice.listed]
        return weights

    def state(self) -> Carried:
        standing = standing_state(self._universe, self._standing)
        return standing._replace(by_symbol={**standing.by_symbol, **self.past.arrays})

    def _choice(self, read: SlotPredictions, slot: int) -> Choice | None:
        import numpy as np

        from tidemill.strategies.ranking_kernel import choose_at

        params, standing = self._params, self._standing
        count, _, both = choose_at(read, slot, standing, self._universe.can_short, params.every, params.quantile)
        if not count:
            return None
        best = np.where(standing.best > 0, standing.best, np.nan)
        spread = np.sqrt((count * count - 1.0) / 12.0) if count > 1 else np.nan
        score = ((count + 1.0) / 2.0 - best) / spread
        return Choice(int(read.number[slot]), standing.listed.copy(), standing.side.astype(float), score, bool(both))


def by_inverse(side: Floats, deviation: Floats, budget: float, cap: float) -> Floats:
    """Each side's budget shared in inverse proportion to volatility, each position cut to `cap`."""
    import numpy as np

    weight = np.zeros_like(side)
    for sign in (1.0, -1.0):
        own = (side == sign) & np.isfinite(deviation)
        if own.any():
            inverse = 1.0 / deviation[own]
            weight[own] = sign * np.minimum(budget * inverse / inverse.sum(), cap)
    return weight


def left_out(count: int, least: int) -> tuple[str, ...]:
    """A sentence about the chosen symbols whose risk is not known; empty where there is none."""
    if not count:
        return ()
    times = f"{count:,} time{'s' * (count != 1)}"
    return (f"{times} a chosen symbol was left out: fewer than {least} returns, or only equal prices, were known.",)
