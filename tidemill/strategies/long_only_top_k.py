"""The strategy `long_only_top_k`: hold the best symbols, and nothing short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidemill.strategies.base import Carried, Slots, Strategy, Universe, require, unasked
from tidemill.strategies.ranking import require_ranking, slot_predictions, standing_of, standing_state

if TYPE_CHECKING:
    from tidemill.strategies.base import Floats


class TopKParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """k: symbols held, but at most half of those that have a prediction (one at least). every, gross, max_weight: as
    in `quantile`.
    """

    k: int = 10
    every: int = 5
    gross: float = 1.0
    max_weight: float = 0.10

    def __post_init__(self) -> None:
        require(self.k >= 1, "k must be at least 1")
        require_ranking(self.every, self.gross, self.max_weight)


class _Stepper:
    """Long the `k` best, equally weighted; a symbol alone in its universe is held while its prediction is above 0."""

    notes: tuple[str, ...] = ()

    def __init__(self, params: TopKParams, universe: Universe, state: Carried | None) -> None:
        self._params, self._universe, self._standing = params, universe, standing_of(universe, state)

    def scan(self, slots: Slots) -> Floats:
        from tidemill.strategies.ranking_kernel import top_weights

        one, weights = self._params, unasked(slots)
        top_weights(slot_predictions(slots), self._standing, one.every, one.k, one.gross, one.max_weight, weights)
        return weights

    def state(self) -> Carried:
        return standing_state(self._universe, self._standing)


STRATEGY = Strategy(
    name="long_only_top_k",
    about="Hold the symbols with the highest predictions, equally weighted.",
    needs="predictions",
    params=TopKParams,
    start=_Stepper,
)
