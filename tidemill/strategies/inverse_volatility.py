"""The strategy `inverse_volatility`: chosen as by `quantile`, weighted in inverse proportion to the volatility of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.experiment import Count, Exposure, Position
from tidemill.strategies.base import Strategy
from tidemill.strategies.ranking import Quantile
from tidemill.strategies.sizing import Choice, SizedStepper, by_inverse, require_window

if TYPE_CHECKING:
    from tidemill.strategies.past import Floats


class InverseVolatilityParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """quantile, every, gross, max_weight: as in `quantile`. window: bars that volatility is estimated from; least: returns
    that must be known in it.
    """

    quantile: Quantile = 0.2
    every: Count = 5
    gross: Exposure = 1.0
    max_weight: Position = 0.10
    window: int = 60
    least: int = 20

    def __post_init__(self) -> None:
        require_window(self.window, self.least)


class _Stepper(SizedStepper):
    def size(self, choice: Choice) -> Floats:
        import numpy as np

        from tidemill.strategies.past import volatility

        params = self._params
        deviation = volatility(self.past.window, params.least)
        self.unknown += int(((choice.side != 0.0) & ~np.isfinite(deviation)).sum())
        return by_inverse(choice.side, deviation, choice.budget(params.gross), params.max_weight)


STRATEGY = Strategy(
    name="inverse_volatility",
    about="Long the highest predictions, short the lowest where the venue allows it, sized by inverse volatility.",
    needs="both",
    params=InverseVolatilityParams,
    start=_Stepper,
)
