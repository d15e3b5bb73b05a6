"""Strategies that size by risk what predictions chose: `inverse_volatility` and `mean_variance`.

Both choose as `quantile` does and estimate from the last `window` bars up to the rebalancing time, that bar included and
nothing later. A chosen symbol with fewer than `least` returns there (a late listing), or without any spread, is left out;
what has no prediction any more (a dead symbol) gets 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy, Weighed, require, require_ranking

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
        _require_common(self)


class MeanVarianceParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """quantile, every, gross, max_weight, window, least: as in `inverse_volatility`.

    refit: rebalancings between two estimates of the covariance. most: symbols in the problem, the best and the worst of
    the chosen. ic: skill assumed in turning ranks into expected returns a bar. risk_aversion: λ of maximise w·μ − λ·variance.
    """

    quantile: float = 0.2
    every: int = 20
    gross: float = 1.0
    max_weight: float = 0.10
    window: int = 120
    least: int = 60
    refit: int = 1
    most: int = 50
    ic: float = 0.05
    risk_aversion: float = 10.0

    def __post_init__(self) -> None:
        _require_common(self)
        require(self.refit >= 1, "refit must be at least 1 rebalancing")
        require(2 <= self.most <= 500, "most must be at least 2 and at most 500 symbols")
        require(0.0 < self.ic < 1.0, "ic must be above 0 and below 1")
        require(0.0 < self.risk_aversion < float("inf"), "risk_aversion must be above 0")


def _require_common(params: InverseVolatilityParams | MeanVarianceParams) -> None:
    require_ranking(params.every, params.gross, params.max_weight, params.quantile)
    require(2 <= params.least <= params.window <= 10_000, "least must be at least 2 and at most window, window at most 10,000")


def _inverse_volatility(
    predictions: pl.DataFrame, params: InverseVolatilityParams, instruments: Mapping[str, Instrument], bars: pl.DataFrame
) -> Weighed:
    from tidemill.strategies.sizing import inverse_volatility

    return inverse_volatility(predictions, params, instruments, bars)


def _mean_variance(
    predictions: pl.DataFrame, params: MeanVarianceParams, instruments: Mapping[str, Instrument], bars: pl.DataFrame
) -> Weighed:
    from tidemill.strategies.sizing import mean_variance

    return mean_variance(predictions, params, instruments, bars)


INVERSE_VOLATILITY = Strategy(
    name="inverse_volatility",
    about="Long the highest predictions, short the lowest where the venue allows it, sized by inverse volatility.",
    needs="both",
    params=InverseVolatilityParams,
    weigh=_inverse_volatility,
)
MEAN_VARIANCE = Strategy(
    name="mean_variance",
    about="Long the highest predictions, short the lowest where the venue allows it, sized by mean and variance.",
    needs="both",
    params=MeanVarianceParams,
    weigh=_mean_variance,
)
