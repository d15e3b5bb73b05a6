"""The set `classic`: the indicators of technical analysis, one line each, in TA-Lib's conventions (population std, its seeds,
percent).

Sources: Wilder, New Concepts in Technical Trading Systems (1978): RSI, ATR, ADX, SAR; Kaufman, Trading Systems and Methods:
KAMA;
Mulloy (1994): DEMA, TEMA; TA-Lib 0.6 for seeds and for what a range without width gives.
"""

from tidemill.features.declaration import Declarations
from tidemill.features.expression import Expression
from tidemill.features.operators import (
    abs,
    adaptive,
    close,
    cumulative,
    delta,
    ema,
    high,
    low,
    max,
    maximum,
    mean,
    mean_deviation,
    min,
    minimum,
    parabolic_sar,
    ratio,
    ref,
    since_max,
    since_min,
    std,
    sum,
    volume,
    where,
    wilder,
    wma,
)

DECLARED = Declarations()
family, feature, named_set = DECLARED.family, DECLARED.feature, DECLARED.named_set

_previous = ref(close, 1)
_typical = (high + low + close) / 3.0
_true_range = maximum(high - low, maximum(abs(high - _previous), abs(low - _previous)))
_change = close - _previous
_rise, _fall = high - ref(high, 1), ref(low, 1) - low
# Comparisons with the missing first bar are false; the product with 0 keeps the bar missing.
_rising = where((_rise > _fall) * (_rise > 0.0), _rise, (_rise + _fall) * 0.0)
_falling = where((_fall > _rise) * (_fall > 0.0), _fall, (_rise + _fall) * 0.0)
_accumulation = ratio((close - low) - (high - close), high - low) * volume
_buying = close - minimum(low, _previous)


def _rsi(n: int) -> Expression:
    gain, loss = wilder(maximum(_change, 0.0), n), wilder(maximum(-_change, 0.0), n)
    return ratio(100.0 * gain, gain + loss)


def _macd(fast: int, slow: int) -> Expression:
    # Both means start at the same bar, as in TA-Lib.
    return (
        ema(close, fast, skip=slow - fast) - ema(close, slow)
        if fast < slow
        else ema(close, fast) - ema(close, slow, skip=fast - slow)
    )


def _signal(fast: int, slow: int, n: int) -> Expression:
    return ema(_macd(fast, slow), n)


def _band(n: int, width: float) -> Expression:
    return mean(close, n, full=True) + width * std(close, n, ddof=0, full=True)


def _directional(movement: Expression, n: int) -> Expression:
    return 100.0 * ratio(wilder(movement, n, short_seed=True), wilder(_true_range, n, short_seed=True))


def _adx(n: int) -> Expression:
    plus, minus = _directional(_rising, n), _directional(_falling, n)
    return wilder(100.0 * ratio(abs(plus - minus), plus + minus), n)


def _kama(n: int) -> Expression:
    path = sum(abs(_change), n, full=True)
    efficiency = where(path > 0.0, minimum(abs(delta(close, n)) / path, 1.0), path * 0.0 + 1.0)
    weight = efficiency * (2.0 / 3.0 - 2.0 / 31.0) + 2.0 / 31.0
    return adaptive(close, _previous, weight * weight)


def _mfi(n: int) -> Expression:
    flow, turn = _typical * volume, delta(_typical, 1)
    tie = 1e-12 * _typical  # two sums of equal ticks may differ in their last bit
    gained = sum(where(turn > tie, flow, turn * 0.0), n, full=True)
    lost = sum(where(turn < -tie, flow, turn * 0.0), n, full=True)
    return 100.0 * ratio(gained, gained + lost)


def _place_in_range(n: int) -> Expression:
    lowest, highest = min(low, n, full=True), max(high, n, full=True)
    return 100.0 * ratio(close - lowest, highest - lowest)


def _stoch_k(n: int, smooth: int) -> Expression:
    return mean(_place_in_range(n), smooth, full=True)


def _willr(n: int) -> Expression:
    lowest, highest = min(low, n, full=True), max(high, n, full=True)
    return maximum(
        minimum(-100.0 * ratio(highest - close, highest - lowest), 0.0), -100.0
    )  # a close outside its bar is at the edge


def _trix(n: int) -> Expression:
    third = ema(ema(ema(close, n), n), n)
    return 100.0 * (third / ref(third, 1) - 1.0)


def _tema(n: int) -> Expression:
    first, second = ema(close, n), ema(ema(close, n), n)
    return 3.0 * first - 3.0 * second + ema(second, n)


def _pressure(n: int) -> Expression:
    return ratio(sum(_buying, n, full=True), sum(_true_range, n, full=True))


def _ultosc(short: int, middle: int, long: int) -> Expression:
    return 100.0 * (4.0 * _pressure(short) + 2.0 * _pressure(middle) + _pressure(long)) / 7.0


def _cci(n: int) -> Expression:
    return ratio(_typical - mean(_typical, n, full=True), 0.015 * mean_deviation(_typical, n, full=True))


def _obv() -> Expression:
    return cumulative(where(_previous >= close, where(_previous > close, -volume, 0.0), volume) + 0.0 * close)


family("sma_20", lambda n: mean(close, n, full=True), unit="price", about="simple moving average of {0} closes")
family("ema_20", lambda n: ema(close, n), unit="price", about="exponential moving average, span {0}")
family("wma_20", lambda n: wma(close, n), unit="price", about="linearly weighted moving average of {0} closes")
family(
    "dema_20",
    lambda n: 2.0 * ema(close, n) - ema(ema(close, n), n),
    unit="price",
    about="double exponential moving average, span {0}",
)
family("tema_20", _tema, unit="price", about="triple exponential moving average, span {0}")
family("kama_10", _kama, unit="price", about="Kaufman's adaptive moving average, efficiency over {0} bars")
family("rsi_14", _rsi, unit="0 to 100", about="Wilder's relative strength index, {0} bars")
family("macd_12_26_9", lambda fast, slow, n: _macd(fast, slow), unit="price", about="exponential mean of {0} less that of {1}")
family("macd_signal_12_26_9", _signal, unit="price", about="exponential mean of MACD {0} {1}, span {2}")
family(
    "macd_hist_12_26_9",
    lambda f, s, n: _macd(f, s) - _signal(f, s, n),
    unit="price",
    about="MACD {0} {1} less its mean, span {2}",
)
family("bb_upper_20_2.0", _band, unit="price", about="Bollinger's upper band, {1:g} deviations over {0} bars")
family(
    "bb_middle_20_2.0", lambda n, width: mean(close, n, full=True), unit="price", about="middle of Bollinger's bands, {0} bars"
)
family(
    "bb_lower_20_2.0",
    lambda n, width: _band(n, -width),
    unit="price",
    about="Bollinger's lower band, {1:g} deviations over {0} bars",
)
family("std_20", lambda n: std(close, n, ddof=0, full=True), unit="price", about="population standard deviation of {0} closes")
family("atr_14", lambda n: wilder(_true_range, n), unit="price", about="average true range, {0} bars")
family(
    "natr_14",
    lambda n: 100.0 * wilder(_true_range, n) / close,
    unit="percent",
    about="average true range of {0} bars over close",
)
family("adx_14", _adx, unit="0 to 100", about="average directional index, {0} bars")
family("plus_di_14", lambda n: _directional(_rising, n), unit="0 to 100", about="upward directional indicator, {0} bars")
family("minus_di_14", lambda n: _directional(_falling, n), unit="0 to 100", about="downward directional indicator, {0} bars")
family("cci_20", _cci, unit="index", about="commodity channel index, {0} bars")
family("mfi_14", _mfi, unit="0 to 100", about="money flow index, {0} bars")
family("willr_14", _willr, unit="-100 to 0", about="Williams' %R, {0} bars")
family("roc_10", lambda n: 100.0 * (close / ref(close, n) - 1.0), unit="percent", about="rate of change over {0} bars")
family("mom_10", lambda n: delta(close, n), unit="price", about="change over {0} bars")
family("trix_15", _trix, unit="percent", about="one-bar change of a triple exponential mean, span {0}")
family("stoch_k_5_3_3", lambda n, k, d: _stoch_k(n, k), unit="0 to 100", about="slow stochastic %K, {0} bars smoothed over {1}")
family(
    "stoch_d_5_3_3", lambda n, k, d: mean(_stoch_k(n, k), d, full=True), unit="0 to 100", about="mean of {2} slow stochastic %K"
)
family(
    "aroon_up_14",
    lambda n: (100.0 / n) * (n - since_max(high, n + 1, full=True)),
    unit="0 to 100",
    about="age of the high of {0} bars",
)
family(
    "aroon_down_14",
    lambda n: (100.0 / n) * (n - since_min(low, n + 1, full=True)),
    unit="0 to 100",
    about="age of the low of {0} bars",
)
family("ultosc_7_14_28", _ultosc, unit="0 to 100", about="ultimate oscillator over {0}, {1} and {2} bars")
family(
    "cmf_20",
    lambda n: sum(_accumulation, n, full=True) / sum(volume, n, full=True),
    unit="-1 to 1",
    about="Chaikin's money flow, {0} bars",
)
family("vwap_20", lambda n: sum(_typical * volume, n, full=True) / sum(volume, n, full=True), unit="price",
       about="typical price weighted by volume over {0} bars")  # fmt: skip
feature("obv", _obv(), unit="volume", about="on-balance volume since the first bar")
feature("ad", cumulative(_accumulation), unit="volume", about="accumulation/distribution line since the first bar")
feature("sar", parabolic_sar(high, low, 0.02, 0.2), unit="price", about="parabolic stop and reverse, step 0.02 up to 0.2")

named_set(
    "classic",
    "sma_20 ema_20 wma_20 dema_20 tema_20 kama_10 rsi_14 macd_12_26_9 macd_signal_12_26_9 macd_hist_12_26_9 "
    "bb_upper_20_2 bb_middle_20_2 bb_lower_20_2 std_20 atr_14 natr_14 adx_14 plus_di_14 minus_di_14 cci_20 mfi_14 "
    "willr_14 roc_10 mom_10 trix_15 stoch_k_5_3_3 stoch_d_5_3_3 aroon_up_14 aroon_down_14 ultosc_7_14_28 obv ad cmf_20 "
    "vwap_20 sar",
)
