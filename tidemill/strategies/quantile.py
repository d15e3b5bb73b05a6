"""The strategy `quantile`: long the best share of the symbols, short the worst, all of equal weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.experiment import Count, Exposure, Position
from tidemill.strategies.base import Carried, Slots, Strategy, Universe, unasked
from tidemill.strategies.ranking import Quantile, slot_predictions, standing_of, standing_state

if TYPE_CHECKING:
    from tidemill.strategies.base import Floats
    from tidemill.strategies.ranking_kernel import Standing


class QuantileParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """quantile: share of symbols on each side, one symbol at least. every: bars between rebalancings. gross: long plus short,
    as a share of equity. max_weight: cap of one position; in a small universe it keeps the gross exposure below `gross`.
    """

    quantile: Quantile = 0.2
    every: Count = 5
    gross: Exposure = 1.0
    max_weight: Position = 0.10


class QuantileStepper:
    """The highest `quantile` is long and, where the venue lets one short, the lowest short."""

    notes: tuple[str, ...] = ()

    def __init__(self, params: QuantileParams, universe: Universe, state: Carried | None) -> None:
        self._params, self._universe, self._standing = params, universe, standing_of(universe, state)

    @property
    def ranking(self) -> tuple[Standing, QuantileParams]:
        """What `quantile_weights` goes on from, for as long as the stepper lives."""
        return self._standing, self._params

    def scan(self, slots: Slots) -> Floats:
        from tidemill.strategies.ranking_kernel import quantile_weights

        one, weights = self._params, unasked(slots)
        quantile_weights(
            slot_predictions(slots),
            self._standing,
            self._universe.can_short,
            one.every,
            one.quantile,
            one.gross,
            one.max_weight,
            weights,
        )
        return weights

    def state(self) -> Carried:
        return standing_state(self._universe, self._standing)


STRATEGY = Strategy(
    name="quantile",
    about="Long the symbols with the highest predictions, short those with the lowest where the venue allows it.",
    needs="predictions",
    params=QuantileParams,
    start=QuantileStepper,
)
