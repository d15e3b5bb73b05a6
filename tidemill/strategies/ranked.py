"""Strategies that rank symbols by their prediction at each rebalancing time.

A rebalancing time is every `every`-th time at which there are predictions, counted from the first, so later data
moves none of them. At such a time every symbol that predictions have named by then gets a weight: what is not chosen,
or has no prediction now, gets 0; what is listed later is not there yet. Equal predictions rank by symbol; where all are
equal nothing is held, since there is no opinion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy, require, require_ranking

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


def _ranked(predictions: pl.DataFrame, every: int) -> pl.DataFrame:
    """The symbols named so far at the rebalancing times: prediction (null without one), `count` of predictions, `best` and
    `worst` rank from 1; both are null where there is no opinion.
    """
    import polars as pl

    usable = predictions.select("symbol", "open_time", pl.col("prediction").cast(pl.Float64)).filter(
        pl.col("prediction").is_finite()
    )
    times = usable.select(pl.col("open_time").unique().sort()).gather_every(every)
    listed = predictions.group_by("symbol").agg(pl.col("open_time").min().alias("listed")).sort("symbol")
    # In order of time and symbol from the start: to sort the whole by both costs more than all else here.
    grid = times.join(listed, how="cross", maintain_order="left_right").filter(pl.col("listed") <= pl.col("open_time"))
    asked = usable.join(times, on="open_time", how="semi")  # one in `every`: the join below then has that much less to hash
    joined = grid.drop("listed").join(asked, on=["symbol", "open_time"], how="left", maintain_order="left")
    at, value = "open_time", pl.col("prediction")
    opinion = value.is_not_null() & ((value.max().over(at) > value.min().over(at)) | (value.count().over(at) == 1))
    return joined.with_columns(
        pl.when(opinion).then(value.rank("ordinal", descending=True).over(at)).alias("best"),
        pl.when(opinion).then(value.count().over(at) + 1 - value.rank("ordinal", descending=True).over(at)).alias("worst"),
        value.count().over(at).alias("count"),
    )


def _frame(ranked: pl.DataFrame, weight: pl.Expr) -> pl.DataFrame:
    return ranked.select("symbol", "open_time", weight.fill_null(0.0).alias("weight"))


def sides(predictions: pl.DataFrame, every: int, quantile: float, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    """`_ranked` with `side` (1 long, −1 short, 0), and `both`: whether anything that is predicted now can be short.

    The highest `quantile` is long and, where the venue lets one short, the lowest short. A symbol alone in its universe
    cannot be ranked: it is long while its prediction is above 0, and short, where allowed, below.
    """
    import polars as pl

    ranked = _ranked(predictions, every)
    shortable = [symbol for symbol, instrument in instruments.items() if instrument.can_short]
    number = pl.max_horizontal((pl.col("count") * quantile + 1e-9).floor(), pl.lit(1.0))
    can_short = pl.col("symbol").is_in(shortable)
    both = (can_short & pl.col("prediction").is_not_null()).any().over("open_time")
    is_long = pl.col("best") <= number
    is_short = (pl.col("worst") <= number) & can_short
    value = pl.col("prediction")
    alone = pl.when(value > 0).then(1).when((value < 0) & can_short).then(-1).otherwise(0)
    many = pl.when(is_long).then(1).when(is_short).then(-1).otherwise(0)
    side = pl.when(pl.col("count") == 1).then(alone).otherwise(many)
    return ranked.with_columns(side.alias("side"), number.alias("number"), both.alias("both"))


def _quantile(predictions: pl.DataFrame, params: QuantileParams, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    """Each chosen symbol has the same weight; where nothing can be short now, all of `gross` is long."""
    import polars as pl

    chosen = sides(predictions, params.every, params.quantile, instruments)
    half = pl.when(pl.col("both")).then(2.0).otherwise(1.0)
    each = pl.min_horizontal(params.gross / half / pl.col("number"), pl.lit(params.max_weight))
    alone = pl.col("count") == 1
    size = pl.when(alone).then(min(params.gross, params.max_weight)).otherwise(each)
    return _frame(chosen, pl.when(pl.col("side") != 0).then(pl.col("side") * size))


def _top_k(predictions: pl.DataFrame, params: TopKParams, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    """Long the `k` best, equally weighted; a symbol alone in its universe is held while its prediction is above 0."""
    import polars as pl

    ranked = _ranked(predictions, params.every)
    held = pl.max_horizontal(pl.min_horizontal(pl.lit(params.k), pl.col("count") // 2), pl.lit(1))
    each = pl.min_horizontal(params.gross / held, pl.lit(params.max_weight))
    chosen = (pl.col("best") <= held) & ((pl.col("count") > 1) | (pl.col("prediction") > 0))
    return _frame(ranked, pl.when(chosen).then(each))


QUANTILE = Strategy(
    name="quantile",
    about="Long the symbols with the highest predictions, short those with the lowest where the venue allows it.",
    needs="predictions",
    params=QuantileParams,
    weigh=_quantile,
)
LONG_ONLY_TOP_K = Strategy(
    name="long_only_top_k",
    about="Hold the symbols with the highest predictions, equally weighted.",
    needs="predictions",
    params=TopKParams,
    weigh=_top_k,
)
