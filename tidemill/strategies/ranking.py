"""Ranking symbols by their prediction at each rebalancing time: what the strategies over predictions share.

A rebalancing time is every `every`-th time at which there are predictions, counted from the first, so later data
moves none of them. At such a time every symbol that predictions have named by then gets a weight: what is not chosen,
or has no prediction now, gets 0; what is listed later is not there yet. Equal predictions rank by symbol; where all are
equal nothing is held, since there is no opinion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidemill.domain.market import Instrument
from tidemill.strategies.base import require

if TYPE_CHECKING:
    import polars as pl


def require_ranking(every: int, gross: float, max_weight: float, quantile: float = 0.5) -> None:
    """What holds for the parameters of every strategy that ranks symbols; as `require`."""
    require(0.0 < quantile <= 0.5, "quantile must be above 0 and at most 0.5")
    require(every >= 1, "every must be at least 1")
    require(0.0 < gross < float("inf"), "gross must be above 0")
    require(0.0 < max_weight < float("inf"), "max_weight must be above 0")


def rankings(predictions: pl.DataFrame, every: int) -> pl.DataFrame:
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


def weighted(ranked: pl.DataFrame, weight: pl.Expr) -> pl.DataFrame:
    """symbol, open_time, weight: 0 where `weight` is null."""
    return ranked.select("symbol", "open_time", weight.fill_null(0.0).alias("weight"))


def sides(predictions: pl.DataFrame, every: int, quantile: float, instruments: Mapping[str, Instrument]) -> pl.DataFrame:
    """`rankings` with `side` (1 long, −1 short, 0), and `both`: whether anything that is predicted now can be short.

    The highest `quantile` is long and, where the venue lets one short, the lowest short. A symbol alone in its universe
    cannot be ranked: it is long while its prediction is above 0, and short, where allowed, below.
    """
    import polars as pl

    ranked = rankings(predictions, every)
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
