"""The strategy `inverse_volatility`: chosen as by `quantile`, weighted in inverse proportion to the volatility of the past."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy, Weighed
from tidemill.strategies.ranking import require_ranking, sides
from tidemill.strategies.sizing import by_inverse, choices, frame_of, left_out, require_window

if TYPE_CHECKING:
    import polars as pl


class InverseVolatilityParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """quantile, every, gross, max_weight: as in `quantile`. window: bars that volatility is estimated from; least: returns
    that must be known in it.
    """

    quantile: float = 0.2
    every: int = 5
    gross: float = 1.0
    max_weight: float = 0.10
    window: int = 60
    least: int = 20

    def __post_init__(self) -> None:
        require_ranking(self.every, self.gross, self.max_weight, self.quantile)
        require_window(self.window, self.least)


def _weigh(
    predictions: pl.DataFrame, params: InverseVolatilityParams, instruments: Mapping[str, Instrument], bars: pl.DataFrame
) -> Weighed:
    import numpy as np

    from tidemill.strategies.past import past_returns, volatility

    past = past_returns(bars)
    ranked = sides(predictions, params.every, params.quantile, instruments)
    made, unknown = [], 0
    for choice in choices(ranked, past):
        deviation = choice.own(volatility(past.window(choice.at, params.window), params.least))
        unknown += int(((choice.side != 0.0) & ~np.isfinite(deviation)).sum())
        made.append(by_inverse(choice.side, deviation, choice.budget(params.gross), params.max_weight))
    return Weighed(frame_of(made, ranked), left_out(unknown, params.least))


STRATEGY = Strategy(
    name="inverse_volatility",
    about="Long the highest predictions, short the lowest where the venue allows it, sized by inverse volatility.",
    needs="both",
    params=InverseVolatilityParams,
    weigh=_weigh,
)
