"""Alpha158 as polars writes it: rolling expressions over each symbol, 143 of the 158.

Left out are IMAX, IMIN and IMXD: polars has no rolling place of an extreme. The line through a window comes from its covariance
with the bar number, which is the cheapest form that polars has.
"""

import polars as pl

WINDOWS = (5, 10, 20, 30, 60)
TINY = 1e-12
_SYMBOL = "symbol"


def _bars() -> dict[str, pl.Expr]:
    o, h, l, c = (pl.col(name) for name in ("open", "high", "low", "close"))  # noqa: E741 - the field's letters
    span, top, bottom = h - l + TINY, pl.max_horizontal(o, c), pl.min_horizontal(o, c)
    return {
        "KMID": (c - o) / o, "KLEN": (h - l) / o, "KMID2": (c - o) / span, "KUP": (h - top) / o, "KUP2": (h - top) / span,
        "KLOW": (bottom - l) / o, "KLOW2": (bottom - l) / span, "KSFT": (2 * c - h - l) / o, "KSFT2": (2 * c - h - l) / span,
        "OPEN0": o / c, "HIGH0": h / c, "LOW0": l / c, "VWAP0": (h + l + c) / 3 / c,
    }  # fmt: skip


def first_stage() -> list[pl.Expr]:
    """Columns that windows read: changes to the bar before, by symbol."""
    c, v = pl.col("close"), pl.col("volume")
    move, flow = c - c.shift(1).over(_SYMBOL), v - v.shift(1).over(_SYMBOL)
    growth, growth_v = c / c.shift(1).over(_SYMBOL), v / v.shift(1).over(_SYMBOL)
    return [
        pl.int_range(pl.len()).cast(pl.Float64).over(_SYMBOL).alias("t"), (v + 1).log().alias("lv"), growth.alias("g"),
        (growth_v + 1).log().alias("gv"), ((growth - 1).abs() * v).alias("w"), (move > 0).fill_null(False).cast(pl.Float64)
        .alias("rose"), (move < 0).fill_null(False).cast(pl.Float64).alias("fell"), move.clip(lower_bound=0).alias("up"),
        (-move).clip(lower_bound=0).alias("down"), move.abs().alias("move"), flow.clip(lower_bound=0).alias("more"),
        (-flow).clip(lower_bound=0).alias("less"), flow.abs().alias("flow"),
    ]  # fmt: skip


def _window(d: int) -> dict[str, pl.Expr]:
    c, v, h, l = (pl.col(name) for name in ("close", "volume", "high", "low"))  # noqa: E741 - the field's letters

    def corr(x: str, y: str) -> pl.Expr:
        return pl.rolling_corr(x, y, window_size=d, min_samples=2)

    def total(name: str) -> pl.Expr:
        return pl.col(name).rolling_sum(d, min_samples=1)

    mean, slope = c.rolling_mean(d, min_samples=1), pl.rolling_cov("close", "t", window_size=d, min_samples=2)
    slope = slope / pl.col("t").rolling_var(d, min_samples=2)
    highest, lowest = h.rolling_max(d, min_samples=1), l.rolling_min(d, min_samples=1)
    moved, flowed = total("move") + TINY, total("flow") + TINY
    rose, fell = pl.col("rose").rolling_mean(d, min_samples=1), pl.col("fell").rolling_mean(d, min_samples=1)
    line = mean + slope * (pl.col("t") - pl.col("t").rolling_mean(d, min_samples=1))
    weighted = pl.col("w")
    found = {
        "ROC": c.shift(d) / c, "MA": mean / c, "STD": c.rolling_std(d, min_samples=2) / c, "BETA": slope / c,
        "RSQR": corr("close", "t") ** 2, "RESI": (c - line) / c, "MAX": highest / c, "MIN": lowest / c,
        "QTLU": c.rolling_quantile(0.8, "linear", d, min_samples=1) / c,
        "QTLD": c.rolling_quantile(0.2, "linear", d, min_samples=1) / c,
        "RANK": c.rolling_rank(d, min_samples=1) / pl.min_horizontal(pl.col("t") + 1, d),
        "RSV": (c - lowest) / (highest - lowest + TINY), "CORR": corr("close", "lv"), "CORD": corr("g", "gv"),
        "CNTP": rose, "CNTN": fell, "CNTD": rose - fell, "SUMP": total("up") / moved, "SUMN": total("down") / moved,
        "SUMD": (total("up") - total("down")) / moved, "VMA": v.rolling_mean(d, min_samples=1) / (v + TINY),
        "VSTD": v.rolling_std(d, min_samples=2) / (v + TINY),
        "WVMA": weighted.rolling_std(d, min_samples=2) / (weighted.rolling_mean(d, min_samples=1) + TINY),
        "VSUMP": total("more") / flowed, "VSUMN": total("less") / flowed, "VSUMD": (total("more") - total("less")) / flowed,
    }  # fmt: skip
    return {f"{name}{d}": expression.over(_SYMBOL) for name, expression in found.items()}


def compute(bars: pl.DataFrame) -> pl.DataFrame:
    """143 features of every bar; bars sorted by symbol and time."""
    wanted = _bars()
    for window in WINDOWS:
        wanted |= _window(window)
    lazy = bars.lazy().with_columns(first_stage())
    return lazy.select("symbol", "open_time", *(expression.alias(name) for name, expression in wanted.items())).collect()
