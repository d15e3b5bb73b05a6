"""The strategy `long_only_top_k`: hold the best symbols, and nothing short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy, require
from tidemill.strategies.ranking import rankings, require_ranking, weighted

if TYPE_CHECKING:
    import polars as pl


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


def _weigh(predictions: pl.DataFrame, params: TopKParams, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    """Long the `k` best, equally weighted; a symbol alone in its universe is held while its prediction is above 0."""
    import polars as pl

    ranked = rankings(predictions, params.every)
    held = pl.max_horizontal(pl.min_horizontal(pl.lit(params.k), pl.col("count") // 2), pl.lit(1))
    each = pl.min_horizontal(params.gross / held, pl.lit(params.max_weight))
    chosen = (pl.col("best") <= held) & ((pl.col("count") > 1) | (pl.col("prediction") > 0))
    return weighted(ranked, pl.when(chosen).then(each))


STRATEGY = Strategy(
    name="long_only_top_k",
    about="Hold the symbols with the highest predictions, equally weighted.",
    needs="predictions",
    params=TopKParams,
    weigh=_weigh,
)
