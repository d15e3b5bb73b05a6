"""Features side by side with pandas and TA-Lib, in one run: `python benchmarks/features.py [symbols] [bars]`.

Fourteen features of the same kind and product (one column over all rows), medians of the rounds after the first. Then all sets
in batch, and one new bar for 1,000 symbols. Prints figures and ratios; compare the ratios, a shared machine is noisy.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import talib

from tidemill.features.api import FeatureSet, compute, feature_set, warm
from tidemill.features.stream import FeatureStream

FOURTEEN = (
    "sma_20", "ema_20", "wma_20", "rsi_14", "macd_12_26_9", "macd_signal_12_26_9", "bb_upper_20_2", "bb_lower_20_2", "atr_14",
    "adx_14", "cci_20", "willr_14", "roc_10", "obv",
)  # fmt: skip
COLUMNS = ("open", "high", "low", "close", "volume")


def panel(symbols: int, length: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (symbols, length)), axis=1))
    opened = close * np.exp(rng.normal(0, 0.01, close.shape))
    high = np.maximum(opened, close) * (1 + rng.random(close.shape) * 0.01)
    low = np.minimum(opened, close) * (1 - rng.random(close.shape) * 0.01)
    volume = rng.integers(1, 100_000, close.shape).astype(float)
    values = {name: array.ravel() for name, array in zip(COLUMNS, (opened, high, low, close, volume), strict=True)}
    times = pl.Series(np.tile(np.arange(length, dtype=np.int64) * 86_400_000_000, symbols)).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {"symbol": np.repeat([f"S{index:04d}" for index in range(symbols)], length), "open_time": times, **values}
    )


def with_talib(bars: pl.DataFrame, length: int) -> np.ndarray:
    _, high, low, close, volume = (bars[name].to_numpy() for name in COLUMNS)
    out = np.empty((14, len(bars)))
    for start in range(0, len(bars), length):
        own = slice(start, start + length)
        h, l, c, v = high[own], low[own], close[own], volume[own]  # noqa: E741 - the field's letters
        out[0, own], out[1, own], out[2, own], out[3, own] = (
            talib.SMA(c, 20),
            talib.EMA(c, 20),
            talib.WMA(c, 20),
            talib.RSI(c, 14),
        )
        out[4, own], out[5, own], _ = talib.MACD(c, 12, 26, 9)
        out[6, own], _, out[7, own] = talib.BBANDS(c, 20, 2, 2)
        out[8, own], out[9, own], out[10, own] = talib.ATR(h, l, c, 14), talib.ADX(h, l, c, 14), talib.CCI(h, l, c, 20)
        out[11, own], out[12, own], out[13, own] = talib.WILLR(h, l, c, 14), talib.ROC(c, 10), talib.OBV(c, v)
    return out


def with_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    by = frame["symbol"]

    def rolling(x: pd.Series, window: int) -> Any:
        return x.groupby(by, sort=False).rolling(window)

    def ema(x: pd.Series, alpha: float) -> pd.Series:
        return x.groupby(by, sort=False).ewm(alpha=alpha, adjust=False).mean().droplevel(0)

    h, l, c, v = frame["high"], frame["low"], frame["close"], frame["volume"]  # noqa: E741 - the field's letters
    previous = c.groupby(by, sort=False).shift()
    change = c - previous
    mean, spread = rolling(c, 20).mean().droplevel(0), rolling(c, 20).std(ddof=0).droplevel(0)
    gain, loss = ema(change.clip(lower=0), 1 / 14), ema((-change).clip(lower=0), 1 / 14)
    macd = ema(c, 2 / 13) - ema(c, 2 / 27)
    true_range = np.maximum(h - l, np.maximum((h - previous).abs(), (l - previous).abs()))
    up, down = h.groupby(by, sort=False).diff(), -l.groupby(by, sort=False).diff()
    atr = ema(true_range, 1 / 14)
    plus, minus = (
        ema(up.where((up > down) & (up > 0), 0.0), 1 / 14) / atr,
        ema(down.where((down > up) & (down > 0), 0.0), 1 / 14) / atr,
    )
    typical = (h + l + c) / 3
    typical_mean = rolling(typical, 20).mean().droplevel(0)
    highest, lowest = rolling(h, 14).max().droplevel(0), rolling(l, 14).min().droplevel(0)
    weighted = sum((20 - lag) * c.groupby(by, sort=False).shift(lag) for lag in range(20)) / 210
    deviation = sum((typical.groupby(by, sort=False).shift(lag) - typical_mean).abs() for lag in range(20)) / 20
    return pd.DataFrame({
        "sma": mean, "ema": ema(c, 2 / 21), "wma": weighted, "rsi": 100 * gain / (gain + loss), "macd": macd,
        "signal": ema(macd, 0.2), "upper": mean + 2 * spread, "lower": mean - 2 * spread, "atr": atr,
        "adx": ema((plus - minus).abs() / (plus + minus), 1 / 14), "cci": (typical - typical_mean) / (0.015 * deviation),
        "willr": -100 * (highest - c) / (highest - lowest), "roc": 100 * (c / c.groupby(by, sort=False).shift(10) - 1),
        "obv": (np.sign(change) * v).groupby(by, sort=False).cumsum(),
    })  # fmt: skip


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:] or seconds))


def step_seconds(features: FeatureSet, symbols: int, rounds: int = 300) -> tuple[float, float]:
    """Median and 99th percentile of one step, after the windows are full."""
    rng = np.random.default_rng(1)
    stream, seconds = FeatureStream(features, [str(index) for index in range(symbols)]), []
    close = np.full(symbols, 100.0)
    for number in range(rounds):
        close = close * np.exp(rng.normal(0, 0.01, symbols))
        row = (
            close,
            close * 1.01,
            close * 0.99,
            close * np.exp(rng.normal(0, 0.001, symbols)),
            rng.integers(1, 999, symbols).astype(float),
        )
        start = time.perf_counter()
        stream.step(*row)
        if number > 80:
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), float(np.quantile(seconds, 0.99))


def main() -> None:
    symbols, length = (int(text) for text in (sys.argv[1:3] or ("800", "3400")))
    start = time.perf_counter()
    warm()
    print(f"kernels loaded or compiled in {time.perf_counter() - start:.2f} s")
    bars = panel(symbols, length)
    frame = bars.to_pandas()
    ours = median_seconds(lambda: compute(bars, feature_set(*FOURTEEN)), 6)
    peers = {
        "TA-Lib": median_seconds(lambda: with_talib(bars, length), 6),
        "pandas": median_seconds(lambda: with_pandas(frame), 1),
    }
    print(f"14 features, {symbols} × {length}: tidemill {ours:.3f} s")
    for name, seconds in peers.items():
        print(f"  {name:8s} {seconds:.3f} s, ratio {seconds / ours:.1f}")
    for name in ("classic", "alpha30", "alpha158"):
        print(f"{name}, {symbols} × {length}: {median_seconds(lambda: compute(bars, feature_set(name)), 3):.3f} s")  # noqa: B023
    for names, count in (
        (("classic", "alpha30"), 1_000),
        (("classic", "alpha158"), 1_000),
        (("alpha158",), 1_000),
        (("alpha158",), 1),
    ):
        median, late = step_seconds(feature_set(*names), count)
        print(f"one bar, {count} symbols × {'+'.join(names)}: {median * 1e3:.3f} ms (p99 {late * 1e3:.3f})")


if __name__ == "__main__":
    main()
