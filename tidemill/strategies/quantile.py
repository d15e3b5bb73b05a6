"""The strategy `quantile`: long the best share of the symbols, short the worst, all of equal weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy
from tidemill.strategies.ranking import require_ranking, sides, weighted

if TYPE_CHECKING:
    import polars as pl


class QuantileParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """quantile: share of symbols on each side, one symbol at least. every: bars between rebalancings. gross: long plus short,
    as a share of equity. max_weight: cap of one position; in a small universe it keeps the gross exposure below `gross`.
    """

    quantile: float = 0.2
    every: int = 5
    gross: float = 1.0
    max_weight: float = 0.10

    def __post_init__(self) -> None:
        require_ranking(self.every, self.gross, self.max_weight, self.quantile)


def _weigh(predictions: pl.DataFrame, params: QuantileParams, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    """Each chosen symbol has the same weight; where nothing can be short now, all of `gross` is long."""
    import polars as pl

    chosen = sides(predictions, params.every, params.quantile, instruments)
    half = pl.when(pl.col("both")).then(2.0).otherwise(1.0)
    each = pl.min_horizontal(params.gross / half / pl.col("number"), pl.lit(params.max_weight))
    alone = pl.col("count") == 1
    size = pl.when(alone).then(min(params.gross, params.max_weight)).otherwise(each)
    return weighted(chosen, pl.when(pl.col("side") != 0).then(pl.col("side") * size))


STRATEGY = Strategy(
    name="quantile",
    about="Long the symbols with the highest predictions, short those with the lowest where the venue allows it.",
    needs="predictions",
    params=QuantileParams,
    weigh=_weigh,
)
