"""The set `classic` against TA-Lib, and against pandas where TA-Lib has nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib
from numpy.typing import NDArray

from tidemill.features.api import compute, feature_set

# TA-Lib starts these from seeds of its own; ours are the same, so agreement begins with TA-Lib's first value.
CLASSIC = feature_set("classic")
Array = NDArray[np.float64]


def talib_values(o: Array, h: Array, l: Array, c: Array, v: Array) -> dict[str, Array]:  # noqa: E741 - the field's letters
    """Every feature of `classic` that TA-Lib has."""
    macd, signal, histogram = talib.MACD(c, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(c, 20, 2, 2)
    slow_k, slow_d = talib.STOCH(h, l, c, 5, 3, 0, 3, 0)
    down, up = talib.AROON(h, l, 14)
    return {
        "sma_20": talib.SMA(c, 20), "ema_20": talib.EMA(c, 20), "wma_20": talib.WMA(c, 20), "dema_20": talib.DEMA(c, 20),
        "tema_20": talib.TEMA(c, 20), "kama_10": talib.KAMA(c, 10), "rsi_14": talib.RSI(c, 14), "macd_12_26_9": macd,
        "macd_signal_12_26_9": signal, "macd_hist_12_26_9": histogram, "bb_upper_20_2": upper, "bb_middle_20_2": middle,
        "bb_lower_20_2": lower, "std_20": talib.STDDEV(c, 20), "atr_14": talib.ATR(h, l, c, 14), "natr_14": talib.NATR(h, l,
        c, 14),
        "adx_14": talib.ADX(h, l, c, 14), "plus_di_14": talib.PLUS_DI(h, l, c, 14), "minus_di_14": talib.MINUS_DI(h, l, c, 14),
        "cci_20": talib.CCI(h, l, c, 20), "mfi_14": talib.MFI(h, l, c, v, 14), "willr_14": talib.WILLR(h, l, c, 14),
        "roc_10": talib.ROC(c, 10), "mom_10": talib.MOM(c, 10), "trix_15": talib.TRIX(c, 15), "stoch_k_5_3_3": slow_k,
        "stoch_d_5_3_3": slow_d, "aroon_up_14": up, "aroon_down_14": down, "ultosc_7_14_28": talib.ULTOSC(h, l, c, 7, 14, 28),
        "obv": talib.OBV(c, v), "ad": talib.AD(h, l, c, v), "sar": talib.SAR(h, l, 0.02, 0.2),
    }  # fmt: skip


def assert_agrees(bars: pl.DataFrame) -> None:
    frame, _ = compute(bars, CLASSIC)
    for (symbol,), own in bars.group_by("symbol", maintain_order=True):
        mine = frame.filter(pl.col("symbol") == symbol)
        columns = [own[name].cast(pl.Float64).to_numpy().copy() for name in ("open", "high", "low", "close", "volume")]
        scale_of_price = np.abs(columns[3]).max()
        for name, theirs in talib_values(*columns).items():
            known = np.isfinite(theirs)
            assert known.any(), name
            # TA-Lib's running sums round on the scale of the price, and a spread is a root of what they leave.
            scale = max(np.abs(theirs[known]).max(), scale_of_price if name in ("std_20", "macd_hist_12_26_9") else 0.0)
            worst = np.abs(mine[name].to_numpy()[known] - theirs[known]).max() / scale
            assert worst <= 1e-9, f"{symbol} {name}: {worst:.1e} of its scale"


def test_every_classic_feature_agrees_with_talib_on_random_bars(clean_panel: pl.DataFrame) -> None:
    assert_agrees(clean_panel)


def test_every_classic_feature_agrees_with_talib_on_stocks(shared_data: Path) -> None:
    bars = pl.read_parquet(shared_data / "sp500_daily_2013_2018" / "sp500_daily.parquet").rename({"date": "open_time"})
    chosen = bars.filter(pl.col("symbol").is_in(["AAPL", "GE", "NVDA", "BRK.B", "LNT"])).with_columns(
        pl.col("open_time").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )
    complete = chosen.drop_nulls().sort("symbol", "open_time")
    assert complete["symbol"].n_unique() >= 4
    assert_agrees(complete)


def test_every_classic_feature_agrees_with_talib_on_hourly_coins(shared_data: Path) -> None:
    path = shared_data / "binance_spot_2024_1h" / "binance_spot_1h.parquet"
    bars = pl.scan_parquet(path)

    chosen = bars.filter(pl.col("symbol").is_in(["BTCUSDT", "PEPEUSDT", "ETHUSDT"])).collect()
    kept = chosen.with_columns(pl.col("open_time").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")).sort(
        "symbol", "open_time"
    )
    assert kept["symbol"].n_unique() >= 2
    assert_agrees(kept)


def test_money_flow_and_average_price_agree_with_pandas(clean_panel: pl.DataFrame) -> None:
    frame, _ = compute(clean_panel, feature_set("cmf_20", "vwap_20"))
    for (symbol,), own in clean_panel.group_by("symbol", maintain_order=True):
        h, l, c, v = (pd.Series(own[name].to_numpy()) for name in ("high", "low", "close", "volume"))  # noqa: E741
        flow = (((c - l) - (h - c)) / (h - l)).fillna(0.0) * v
        wanted = {
            "cmf_20": flow.rolling(20).sum() / v.rolling(20).sum(),
            "vwap_20": ((h + l + c) / 3 * v).rolling(20).sum() / v.rolling(20).sum(),
        }
        mine = frame.filter(pl.col("symbol") == symbol)
        for name, series in wanted.items():
            np.testing.assert_allclose(mine[name].to_numpy(), series.to_numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("names", "peer"),
    [
        ("sma_50", lambda c: talib.SMA(c, 50)),
        ("rsi_7", lambda c: talib.RSI(c, 7)),
        ("ema_3", lambda c: talib.EMA(c, 3)),
        ("kama_21", lambda c: talib.KAMA(c, 21)),
        ("macd_5_35_5", lambda c: talib.MACD(c, 5, 35, 5)[0]),
        ("bb_upper_10_2.5", lambda c: talib.BBANDS(c, 10, 2.5, 2.5)[0]),
        ("trix_4", lambda c: talib.TRIX(c, 4)),
    ],
)
def test_other_parameters_are_found_by_name_and_agree_too(names: str, peer: object, clean_panel: pl.DataFrame) -> None:
    own = clean_panel.filter(pl.col("symbol") == "S0")
    frame, _ = compute(own, feature_set(names))
    theirs = peer(own["close"].to_numpy().copy())  # type: ignore[operator]
    known = np.isfinite(theirs)
    np.testing.assert_allclose(
        frame[names].to_numpy()[known], theirs[known], rtol=1e-9, atol=1e-9 * np.abs(theirs[known]).max()
    )


def test_a_constant_price_gives_neutral_values_and_no_infinity() -> None:
    length = 120
    times = pl.datetime_range(
        pl.datetime(2024, 1, 1), pl.datetime(2024, 4, 29), "1d", time_unit="us", time_zone="UTC", eager=True
    )
    flat = {name: [7.5] * length for name in ("open", "high", "low", "close")} | {"volume": [10.0] * length}
    frame, _ = compute(pl.DataFrame({"symbol": ["X"] * length, "open_time": times, **flat}), CLASSIC)
    last = frame.row(-1, named=True)
    for name in (
        "sma_20",
        "ema_20",
        "wma_20",
        "dema_20",
        "tema_20",
        "kama_10",
        "bb_upper_20_2",
        "bb_lower_20_2",
        "vwap_20",
        "sar",
    ):
        assert last[name] == pytest.approx(7.5, rel=1e-15), name
    for name in (
        "macd_12_26_9",
        "std_20",
        "atr_14",
        "adx_14",
        "plus_di_14",
        "cci_20",
        "mfi_14",
        "roc_10",
        "mom_10",
        "willr_14",
        "cmf_20",
    ):
        assert last[name] == 0.0, name
