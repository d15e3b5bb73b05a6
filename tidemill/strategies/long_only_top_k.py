"""The strategy `long_only_top_k`: hold the best symbols, and nothing short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.experiment import Count, Exposure, Position
from tidemill.strategies.base import Carried, Slots, Strategy, Universe, unasked
from tidemill.strategies.ranking import slot_predictions, standing_of, standing_state

if TYPE_CHECKING:
    from tidemill.strategies.base import Floats


class TopKParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """k: symbols held, but at most half of those that have a prediction (one at least). every, gross, max_weight: as
    in `quantile`.
    """

    k: Count = 10
    every: Count = 5
    gross: Exposure = 1.0
    max_weight: Position = 0.10


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
