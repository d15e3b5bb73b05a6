"""Planted leaks by kind, and what looks like one and is none: columns of one's own over a panel of bars.

`alone` read their own symbol's bars, `across` those of others too. Conditions of 150 bars are more than a window of the proof
holds: where they decide, a feature does not live in any window.
"""

import polars as pl

S, T = "symbol", "open_time"
OPENED, HIGH, LOWEST, V = (pl.col(name).fill_nan(None).forward_fill().over(S) for name in ("open", "high", "low", "volume"))
C = pl.col("close").fill_nan(None).forward_fill()  # the close that is known by then; `.over(S)` comes last
RAW = pl.col("close").fill_nan(None)
NEXT = (C.shift(-1) / C - 1.0).over(S)
PAST = (C / C.shift(1) - 1.0).over(S)
BAR = pl.int_range(pl.len()).over(S)
# The label of a horizon of 3: from the next open to the open after three more bars.
OPEN = pl.col("open").fill_nan(None).forward_fill()
LABEL = (OPEN.shift(-4) / OPEN.shift(-1) - 1.0).over(S)
# More than a window holds: near the highest close of 150 bars, far below the highest of all, late in a symbol's life.
HOT = (0.97 * C.rolling_max(150) < C).over(S)
LOW = (0.8 * C.cum_max() > C).over(S) & (BAR > 140)
BUSY = 6.0 * pl.col("volume").fill_nan(None).rolling_median(20, min_samples=5).over(S) < V
NUMBER = pl.Float64

LEAKS_ALONE: dict[str, dict[str, pl.Expr]] = {
    "a later bar": {
        "next_close": C.shift(-1).over(S),
        "next_return": NEXT,
        "five_later": C.shift(-5).over(S),
        "next_volume": pl.col("volume").shift(-1).over(S),
        "lag_and_more_back": C.shift(2).shift(-3).over(S),
        "label": LABEL,
    },
    "a centred window": {
        "centred_mean": C.rolling_mean(5, center=True).over(S),
        "centred_median": C.rolling_median(5, center=True).over(S),
        "centred_std": C.rolling_std(21, center=True).over(S),
    },
    "the whole history": {
        "by_mean": (C / C.mean()).over(S),
        "z_score": ((C - C.mean()) / C.std()).over(S),
        "rank_of_all": C.rank().over(S),
        "min_max": ((C - C.min()) / (C.max() - C.min())).over(S),
        "top_decile": (C.quantile(0.9) < C).over(S),
        "by_last": (C / C.last()).over(S),
        "share_of_volume": (pl.col("volume").fill_nan(0.0).cum_sum() / pl.col("volume").fill_nan(0.0).sum()).over(S),
    },
    "a fit on all bars": {
        "trend_of_all": (C - pl.int_range(pl.len()) * pl.cov(C, pl.int_range(pl.len())) / pl.int_range(pl.len()).var()).over(S),
        "beta_of_all": PAST * (pl.cov(PAST, V) / V.var()).over(S),
        "median_split": (pl.col("volume") > pl.col("volume").fill_nan(None).median()).over(S),
    },
    "filling backwards": {
        "filled_back": RAW.backward_fill().over(S),
        "interpolated": RAW.interpolate().over(S),
    },
    "a direction alone": {
        "up": (NEXT > 0.0).cast(NUMBER),
        "up_flag": NEXT > 0.0,
        "up_text": pl.when(NEXT > 0.0).then(pl.lit("up")).otherwise(pl.lit("down")),
    },
    "a smoother that runs backwards": {
        "ewm_backwards": C.reverse().ewm_mean(span=5).reverse().over(S),
        "highest_to_come": C.reverse().cum_max().reverse().over(S),
    },
    "turning points": {
        "local_high": (C.rolling_max(7, center=True) == C).over(S),
        "best_of_five": (C.rolling_max(5).shift(-5) / C).over(S),
        "barrier": (C.rolling_max(10).shift(-10) > 1.03 * C).over(S).cast(NUMBER),
    },
    "a rare bar": {
        "each_97th": pl.when(BAR % 97 == 50).then(NEXT).otherwise(PAST),
        "busy": pl.when(BUSY).then(NEXT).otherwise(PAST),
        "after_a_gap": pl.when((pl.col(T).diff() > pl.duration(days=2)).over(S)).then(NEXT).otherwise(PAST),
    },
    "a rare bar behind a warm-up": {
        "hot_label": pl.when(HOT).then(LABEL),
        "hot_next": pl.when(HOT).then(NEXT).otherwise(PAST),
        "hot_up": pl.when(HOT).then((NEXT > 0.0).cast(NUMBER)).otherwise(0.5),
        "hot_and_busy": pl.when(HOT & (2.0 * V.shift(1).over(S) < V)).then(NEXT).otherwise(PAST),
        "low_next": pl.when(LOW).then(NEXT),
        "late_in_life": pl.when((BAR > 170) & (BAR % 13 == 0)).then(NEXT),
        "three_bars": pl.when(BAR.is_in([171, 202, 233])).then((NEXT > 0.0).cast(NUMBER)).otherwise(0.0),
    },
    "what the symbol will later have": {
        "bars_in_all": pl.len().over(S) + BAR * 0,
        "bars_left": pl.len().over(S) - BAR,
        "ends_soon": (pl.len().over(S) - BAR < 10).cast(NUMBER),
        "hot_and_ends_soon": (HOT & (pl.len().over(S) - BAR < 30)).cast(NUMBER),
        "next_gap": (pl.col(T).shift(-1) - pl.col(T)).over(S).dt.total_days(),
    },
}

LEAKS_ACROSS: dict[str, dict[str, pl.Expr]] = {
    "what the panel will later hold": {
        "symbols_in_all": C.over(S) / pl.col(S).n_unique(),
        "share_listed": pl.len().over(T) / pl.col(S).n_unique(),
        "hot_symbols_in_all": pl.when(HOT).then(pl.col(S).n_unique()),
        "listed_after": pl.col(T).min().over(S).rank("dense") / pl.col(S).n_unique(),
        "outlived": (pl.col(T).max().over(S) < pl.col(T).max()).cast(NUMBER),
        "bars_of_the_panel": pl.len() + BAR * 0,
    },
    "the whole panel": {
        "by_mean_of_all": C.over(S) / pl.col("close").fill_nan(None).mean(),
        "rank_in_all": pl.col("volume").rank(),
    },
    "later bars of others": {
        "rank_of_next": pl.col("next").rank().over(T),
        "next_of_market": pl.col("next").mean().over(T),
        "hot_next_of_market": pl.when(HOT).then(pl.col("next").mean().over(T)),
    },
}

SUSPECTS_ALONE: dict[str, pl.Expr] = {
    "lag": C.shift(1).over(S),
    "long_lag": C.shift(170).over(S),
    "there_and_back": C.shift(-1).shift(1).over(S),
    "return_1": PAST,
    "return_20": (C / C.shift(20) - 1.0).over(S),
    "mean_5": C.rolling_mean(5).over(S),
    "mean_150": C.rolling_mean(150).over(S),
    "std_20": C.rolling_std(20).over(S),
    "median_60": C.rolling_median(60).over(S),
    "min_100": C.rolling_min(100).over(S),
    "quantile_30": C.rolling_quantile(0.9, window_size=30).over(S),
    "skew_40": C.rolling_skew(40).over(S),
    "ewm": C.ewm_mean(span=12).over(S),
    "ewm_std": C.ewm_std(span=30).over(S),
    "sum_so_far": C.fill_null(0.0).cum_sum().over(S),
    "highest_so_far": C.cum_max().over(S),
    "fall_so_far": (C / C.cum_max() - 1.0).over(S),
    "mean_so_far": (C.fill_null(0.0).cum_sum() / (pl.int_range(pl.len()) + 1)).over(S),
    "by_first": C.over(S) / C.drop_nulls().first().over(S),
    "filled": C.over(S),
    "was_unknown": RAW.is_null(),
    "bar": BAR,
    "bars_since_listing_text": pl.when(BAR < 20).then(pl.lit("new")).otherwise(pl.lit("old")),
    "days_since_listing": (pl.col(T) - pl.col(T).min().over(S)).dt.total_days(),
    "gap_before": pl.col(T).diff().over(S).dt.total_days(),
    "weekday": pl.col(T).dt.weekday(),
    "month_end": pl.col(T).dt.month_end() == pl.col(T).dt.truncate("1d"),
    "day": pl.col(T).dt.day().cast(NUMBER),
    "range": (HIGH - LOWEST) / C.over(S),
    "overnight": OPENED / C.shift(1).over(S) - 1.0,
    "turnover": C.over(S) * V,
    "busy_flag": BUSY,
    "busy_past": pl.when(BUSY).then(PAST).otherwise(0.0),
    "hot": HOT,
    "hot_past": pl.when(HOT).then(PAST),
    "hot_text": pl.when(HOT).then(pl.lit("hot")).otherwise(pl.lit("cold")),
    "low_past": pl.when(LOW).then(PAST).otherwise(-1.0),
    "each_97th_past": pl.when(BAR % 97 == 50).then(PAST),
    "hot_so_far": HOT.cast(NUMBER).fill_null(0.0).cum_sum().over(S),
    "constant": pl.lit(3.0) + BAR * 0,
    "nothing": pl.lit(None, dtype=NUMBER) + BAR,
    "name": pl.col(S).str.len_chars() + BAR * 0,
    "name_of_it": pl.col(S),
}

SUSPECTS_ACROSS: dict[str, pl.Expr] = {
    "rank_now": pl.col("close").rank().over(T),
    "less_market": pl.col("past") - pl.col("past").mean().over(T),
    "listed_now": pl.len().over(T),
    "share_above": (pl.col("past") > 0.0).cast(NUMBER).mean().over(T),
    "sum_of_market": pl.col("past").sum().over(T) * V,
    "best_now": pl.col("past") == pl.col("past").max().over(T),
    "hot_ones": pl.col("hot").cast(NUMBER).sum().over(T),
    "hot_rank": pl.when(HOT).then(pl.col("past").rank().over(T)),
    "spread_now": pl.col("past").std().over(T),
}


def own(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars with what columns across symbols are made of; polars nests no `over` in an `over`."""
    return bars.with_columns(next=NEXT, past=PAST, hot=HOT)


def columns(leaks: dict[str, dict[str, pl.Expr]]) -> dict[str, pl.Expr]:
    return {name: expression for own in leaks.values() for name, expression in own.items()}
