"""How good predictions were: information coefficients, quantile returns, hit rate, turnover.

Every function takes a frame of `scored`: symbol, open_time, prediction, label, finite rows only. Predictions are
compared **across symbols** at each time. Where the median cross-section has fewer than 3 symbols there is nothing to
compare across, so they are compared **over time** instead: all rows of one calendar month make one group. `mode`
tells which holds, and a result of the second kind is not comparable with one of the first. A group without a spread
in predictions or labels has no coefficient (null); empty input gives empty frames and NaN, never an exception.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tidemill.metrics.bootstrap import mean_interval

if TYPE_CHECKING:
    import polars as pl

Mode = Literal["cross_section", "time_series"]
SMALLEST_CROSS_SECTION = 3
NAN = float("nan")


class PredictionMetrics(NamedTuple):
    """Summary of one engine. Coefficients are means over groups; NaN where not defined.

    ic_low, ic_high, rank_ic_low, rank_ic_high: 95 % intervals of the means by the stationary bootstrap, blocks at least
    twice as long as labels overlap. icir: mean / standard deviation of the coefficient, not annualised. t_stat: of the
    mean rank IC, by Newey and West with `newey_west_lags`. hit_rate, turnover: see the functions. groups: how many
    coefficients went in.
    symbols: of the median group.
    """

    mode: Mode
    groups: int
    symbols: float
    ic: float
    ic_low: float
    ic_high: float
    rank_ic: float
    rank_ic_low: float
    rank_ic_high: float
    icir: float
    rank_icir: float
    t_stat: float
    hit_rate: float
    turnover: float


def scored(predictions: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Rows that have both: symbol, open_time, prediction, label, and what else `labels` say; null, NaN and infinite values
    are left out. Sorted by time and symbol.
    """
    import polars as pl

    both = predictions.select("symbol", "open_time", "prediction").join(labels, on=["symbol", "open_time"])
    finite = pl.col("prediction").is_finite() & pl.col("label").is_finite()
    return both.filter(finite.fill_null(False)).sort("open_time", "symbol")


def mode(frame: pl.DataFrame) -> Mode:
    """Whether the median time has enough symbols to compare across them."""
    counts = frame.group_by("open_time").len().get_column("len")
    median = counts.median() if len(counts) else 0
    return "cross_section" if isinstance(median, float) and median >= SMALLEST_CROSS_SECTION else "time_series"


def _grouped(frame: pl.DataFrame, kind: Mode) -> pl.DataFrame:
    import polars as pl

    time = pl.col("open_time")
    return frame.with_columns((time if kind == "cross_section" else time.dt.truncate("1mo")).alias("group"))


def information_coefficients(frame: pl.DataFrame) -> pl.DataFrame:
    """time, count, ic (Pearson), rank_ic (Spearman, average ties): one row for each group (time, or month: see the module)."""
    import polars as pl

    prediction, label = pl.col("prediction"), pl.col("label")

    def varies(column: pl.Expr) -> pl.Expr:
        return column.max() > column.min()

    found = (
        _grouped(frame, mode(frame))
        .group_by("group")
        .agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.corr(prediction, label).alias("ic"),
            pl.corr(prediction.rank("average"), label.rank("average")).alias("rank_ic"),
            (varies(prediction) & varies(label)).alias("varies"),
        )
    )
    # Only now: inside of the groups a condition costs as much as all the rest.
    defined = pl.col("varies") & (pl.col("count") >= SMALLEST_CROSS_SECTION)
    coefficients = [
        pl.when(defined).then(pl.col(name).clip(-1.0, 1.0)).fill_nan(None).alias(name) for name in ("ic", "rank_ic")
    ]
    return found.select(pl.col("group").alias("time"), "count", *coefficients).sort("time")


def newey_west_t(values: ArrayLike, lags: int) -> float:
    """t statistic of the mean of a series whose neighbours overlap, with Bartlett weights over `lags` (Newey and West 1987).

    With lags 0 it is mean / (population standard deviation / √n). NaN for fewer than two values or no spread.
    """
    series = np.asarray(values, dtype=np.float64)
    series = series[np.isfinite(series)]
    if series.size < 2:
        return NAN
    centred = series - series.mean()
    variance = float(centred @ centred) / series.size
    for lag in range(1, min(lags, series.size - 1) + 1):
        weight = 1.0 - lag / (lags + 1.0)
        variance += 2.0 * weight * float(centred[lag:] @ centred[:-lag]) / series.size
    if variance <= 1e-18 * max(float(series.mean()) ** 2, 1e-300):
        return NAN
    return float(series.mean()) / math.sqrt(variance / series.size)


def newey_west_lags(count: int, horizon: int) -> int:
    """Lags for a series of `count` coefficients of labels held for `horizon` bars: 3 × (horizon − 1), or ⌈4 (n / 100)^(2/9)⌉.

    The larger of both. Overlap alone correlates neighbours up to horizon − 1 bars apart, by 1 − k / horizon. Bartlett
    weights that end there lose a third of that variance and overstate t by a fifth; ending at three times the distance they
    lose a ninth. The second term (Newey & West 1994, without their data-dependent step) is for dependence beyond overlap:
    what predictions and markets share from one bar to the next.
    """
    rate: float = 4.0 * (max(count, 1) / 100.0) ** (2.0 / 9.0)
    return max(3 * (horizon - 1), math.ceil(rate))


def ic_by_month(frame: pl.DataFrame, groups: pl.DataFrame | None = None) -> pl.DataFrame:
    """month (text, YYYY-MM), ic, rank_ic (means of the month's groups), count (groups with a coefficient).

    groups: `information_coefficients` of the frame, where they are known already.
    """
    import polars as pl

    return (
        (information_coefficients(frame) if groups is None else groups)
        .group_by(pl.col("time").dt.strftime("%Y-%m").alias("month"))
        .agg(pl.col("ic").mean(), pl.col("rank_ic").mean(), pl.col("rank_ic").count().cast(pl.Int64).alias("count"))
        .sort("month")
    )


def quantile_returns(frame: pl.DataFrame, quantiles: int = 5) -> pl.DataFrame:
    """quantile (1: lowest predictions), mean_return, count: mean label of each quantile, groups weighing the same.

    There are never more quantiles than symbols in the median group. Equal predictions share a quantile. Over time
    (one symbol) quantiles are cut over the whole sample, which nobody knew beforehand: a description, not a strategy.
    """
    import polars as pl

    across = mode(frame) == "cross_section"
    grouped = frame.with_columns((pl.col("open_time") if across else pl.lit(0)).alias("group"))
    sizes = grouped.group_by("group").len().get_column("len")
    number = max(min(quantiles, int(np.median(sizes.to_numpy()))), 1) if len(sizes) else quantiles
    share = (pl.col("prediction").rank("average").over("group") - 0.5) / pl.len().over("group")
    cut = grouped.with_columns((share * number).floor().clip(0, number - 1).cast(pl.Int64).alias("quantile") + 1)
    by_group = cut.group_by("group", "quantile", maintain_order=True).agg(pl.col("label").mean(), pl.len().alias("rows"))
    return (
        by_group.group_by("quantile", maintain_order=True)
        .agg(pl.col("label").mean().alias("mean_return"), pl.col("rows").sum().cast(pl.Int64).alias("count"))
        .sort("quantile")
    )


def hit_rate(frame: pl.DataFrame) -> float:
    """Share of rows whose prediction was on the right side: of the median of its time across symbols, of zero over time.

    Rows that lie exactly on the line, in either, do not count. A coin gives 0.5, whatever the market did.
    """
    import polars as pl

    across = mode(frame) == "cross_section"
    line = {name: pl.col(name).median().over("open_time") if across else pl.lit(0.0) for name in ("prediction", "label")}
    sides = frame.select(((pl.col(name) - line[name]).sign()).alias(name) for name in ("prediction", "label"))
    decided = sides.filter((pl.col("prediction") != 0) & (pl.col("label") != 0))
    return decided.filter(pl.col("prediction") == pl.col("label")).height / decided.height if decided.height else NAN


def turnover(frame: pl.DataFrame, quantile: float = 0.2) -> float:
    """How fast predictions change, from one time to the next: the mean share of the top `quantile` of symbols (one at
    least) that was not in it before.

    Over time (fewer than 3 symbols): the share of bars at which the sign of a symbol's prediction changed. 0 never
    changes, 1 always.
    """
    import polars as pl

    if mode(frame) == "time_series":
        flips = frame.sort("symbol", "open_time").select(
            (pl.col("prediction").sign() != pl.col("prediction").sign().shift(1)).over("symbol").alias("flip")
        )
        mean = flips.get_column("flip").cast(pl.Float64).mean()
        return mean if isinstance(mean, float) else NAN
    number = (pl.len().over("open_time") * quantile).floor().clip(lower_bound=1)
    place = pl.col("prediction").rank("ordinal", descending=True).over("open_time")
    top = frame.filter(place <= number).select("symbol", pl.col("open_time").rank("dense").cast(pl.Int64).alias("at"))
    before = top.with_columns(pl.col("at") + 1, pl.lit(True).alias("stayed"))
    joined = top.filter(pl.col("at") > 1).join(before, on=["symbol", "at"], how="left")
    shares = joined.group_by("at").agg((1.0 - pl.col("stayed").fill_null(False).mean()).alias("left")).sort("at")
    left = shares.get_column("left").mean()  # in order of time: the bits of a mean depend on it
    return left if isinstance(left, float) else NAN


def _mean_and_ratio(frame: pl.DataFrame, column: str) -> tuple[float, float]:
    values = frame.get_column(column).drop_nulls().to_numpy()
    if not values.size:
        return NAN, NAN
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    mean = float(values.mean())
    return mean, mean / deviation if deviation > 1e-12 else NAN


def prediction_metrics(frame: pl.DataFrame, horizon: int = 1, groups: pl.DataFrame | None = None) -> PredictionMetrics:
    """All of it for one engine; `horizon` is the label's, in bars: labels of neighbouring bars overlap in `horizon −
    1` of them. groups: `information_coefficients` of the frame, where they are known already.
    """
    kind = mode(frame)
    groups = information_coefficients(frame) if groups is None else groups
    (ic, icir), (rank_ic, rank_icir) = _mean_and_ratio(groups, "ic"), _mean_and_ratio(groups, "rank_ic")
    ranks = groups.get_column("rank_ic").drop_nulls().to_numpy()
    across = kind == "cross_section"
    overlap = horizon if across else 1  # months overlap by their edges alone
    linear, ranked = (mean_interval(groups.get_column(name).drop_nulls(), overlap=overlap) for name in ("ic", "rank_ic"))
    size = groups.get_column("count").median()
    return PredictionMetrics(
        mode=kind,
        groups=len(ranks),
        symbols=size if across and isinstance(size, float) else float(frame.get_column("symbol").n_unique()),
        ic=ic,
        ic_low=linear.low,
        ic_high=linear.high,
        rank_ic=rank_ic,
        rank_ic_low=ranked.low,
        rank_ic_high=ranked.high,
        icir=icir,
        rank_icir=rank_icir,
        t_stat=newey_west_t(ranks, newey_west_lags(len(ranks), horizon) if across else 1),
        hit_rate=hit_rate(frame),
        turnover=turnover(frame),
    )
