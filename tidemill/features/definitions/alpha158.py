"""The sets `alpha158` and `alpha30`: the 158 expressions of qlib's Alpha158 under its names, and the first thirty of them.

As in qlib, a window needs one number (two for a spread), and an early window is shorter. Different by decision: a degenerate
window is relative (std ≤ 1e-9 · |mean|), places count from the oldest bar with the oldest of equals, and the fallback of VWAP0
where no quote
volume is known is (high + low + close) / 3.
"""

from tidemill.features.declaration import Declarations
from tidemill.features.operators import (
    abs,
    argmax,
    argmin,
    close,
    corr,
    high,
    log,
    low,
    max,
    maximum,
    mean,
    min,
    minimum,
    open,
    quantile,
    rank,
    ref,
    resid,
    rsquare,
    slope,
    std,
    sum,
    volume,
    vwap,
)

DECLARED = Declarations()
family, feature, named_set = DECLARED.family, DECLARED.feature, DECLARED.named_set

_TINY = 1e-12
_range = high - low + _TINY
_top, _bottom = maximum(open, close), minimum(open, close)
_previous, _previous_volume = ref(close, 1), ref(volume, 1)
_up, _down, _move = maximum(close - _previous, 0.0), maximum(_previous - close, 0.0), abs(close - _previous)
_more, _less = maximum(volume - _previous_volume, 0.0), maximum(_previous_volume - volume, 0.0)
_flow = abs(volume - _previous_volume)
_weighted = abs(close / _previous - 1.0) * volume
_log_volume, _log_growth = log(volume + 1.0), log(volume / _previous_volume + 1.0)

feature("KMID", (close - open) / open, unit="ratio", about="body of the bar over open")
feature("KLEN", (high - low) / open, unit="ratio", about="length of the bar over open")
feature("KMID2", (close - open) / _range, unit="ratio", about="body of the bar over its length")
feature("KUP", (high - _top) / open, unit="ratio", about="upper shadow over open")
feature("KUP2", (high - _top) / _range, unit="ratio", about="upper shadow over the bar's length")
feature("KLOW", (_bottom - low) / open, unit="ratio", about="lower shadow over open")
feature("KLOW2", (_bottom - low) / _range, unit="ratio", about="lower shadow over the bar's length")
feature("KSFT", (2.0 * close - high - low) / open, unit="ratio", about="close against the middle of the bar, over open")
feature(
    "KSFT2", (2.0 * close - high - low) / _range, unit="ratio", about="close against the middle of the bar, over its length"
)
feature("OPEN0", open / close, unit="ratio", about="open over close")
feature("HIGH0", high / close, unit="ratio", about="high over close")
feature("LOW0", low / close, unit="ratio", about="low over close")
feature(
    "VWAP0",
    vwap / close,
    unit="ratio",
    about="average price over close: quote volume / volume where known, else (high + low + close) / 3",
)
family("ROC5", lambda d: ref(close, d) / close, unit="ratio", about="close {0} bars ago over close")
family("MA5", lambda d: mean(close, d) / close, unit="ratio", about="mean of {0} closes over close")
family("STD5", lambda d: std(close, d) / close, unit="ratio", about="sample standard deviation of {0} closes over close")
family("BETA5", lambda d: slope(close, d) / close, unit="ratio a bar", about="slope of the line through {0} closes over close")
family("RSQR5", lambda d: rsquare(close, d), unit="0 to 1", about="how well a line fits {0} closes")
family(
    "RESI5",
    lambda d: resid(close, d) / close,
    unit="ratio",
    about="distance of close to the line through {0} closes, over close",
)
family("MAX5", lambda d: max(high, d) / close, unit="ratio", about="greatest of {0} highs over close")
family("MIN5", lambda d: min(low, d) / close, unit="ratio", about="smallest of {0} lows over close")
family("QTLU5", lambda d: quantile(close, d, 0.8) / close, unit="ratio", about="80 % quantile of {0} closes over close")
family("QTLD5", lambda d: quantile(close, d, 0.2) / close, unit="ratio", about="20 % quantile of {0} closes over close")
family("RANK5", lambda d: rank(close, d), unit="0 to 1", about="percentile of close among {0} closes")
family(
    "RSV5",
    lambda d: (close - min(low, d)) / (max(high, d) - min(low, d) + _TINY),
    unit="0 to 1",
    about="close in the range of {0} bars",
)
family("IMAX5", lambda d: argmax(high, d) / d, unit="0 to 1", about="place of the greatest of {0} highs")
family("IMIN5", lambda d: argmin(low, d) / d, unit="0 to 1", about="place of the smallest of {0} lows")
family(
    "IMXD5",
    lambda d: (argmax(high, d) - argmin(low, d)) / d,
    unit="-1 to 1",
    about="from the smallest low to the greatest high of {0} bars",
)
family(
    "CORR5", lambda d: corr(close, _log_volume, d), unit="-1 to 1", about="correlation of close and log volume over {0} bars"
)
family(
    "CORD5",
    lambda d: corr(close / _previous, _log_growth, d),
    unit="-1 to 1",
    about="correlation of their changes over {0} bars",
)
family("CNTP5", lambda d: mean(close > _previous, d), unit="0 to 1", about="share of {0} bars that rose")
family("CNTN5", lambda d: mean(close < _previous, d), unit="0 to 1", about="share of {0} bars that fell")
family(
    "CNTD5",
    lambda d: mean(close > _previous, d) - mean(close < _previous, d),
    unit="-1 to 1",
    about="share that rose less share that fell",
)
family("SUMP5", lambda d: sum(_up, d) / (sum(_move, d) + _TINY), unit="0 to 1", about="gains over all movement of {0} bars")
family("SUMN5", lambda d: sum(_down, d) / (sum(_move, d) + _TINY), unit="0 to 1", about="losses over all movement of {0} bars")
family(
    "SUMD5",
    lambda d: (sum(_up, d) - sum(_down, d)) / (sum(_move, d) + _TINY),
    unit="-1 to 1",
    about="gains less losses over all movement",
)
family("VMA5", lambda d: mean(volume, d) / (volume + _TINY), unit="ratio", about="mean of {0} volumes over volume")
family(
    "VSTD5",
    lambda d: std(volume, d) / (volume + _TINY),
    unit="ratio",
    about="sample standard deviation of {0} volumes over volume",
)
family(
    "WVMA5",
    lambda d: std(_weighted, d) / (mean(_weighted, d) + _TINY),
    unit="ratio",
    about="spread of movement weighted by volume",
)
family(
    "VSUMP5", lambda d: sum(_more, d) / (sum(_flow, d) + _TINY), unit="0 to 1", about="rises over all changes of {0} volumes"
)
family(
    "VSUMN5", lambda d: sum(_less, d) / (sum(_flow, d) + _TINY), unit="0 to 1", about="falls over all changes of {0} volumes"
)
family(
    "VSUMD5",
    lambda d: (sum(_more, d) - sum(_less, d)) / (sum(_flow, d) + _TINY),
    unit="-1 to 1",
    about="rises less falls of volume",
)

_BARS = "KMID KLEN KMID2 KUP KUP2 KLOW KLOW2 KSFT KSFT2 OPEN0 HIGH0 LOW0 VWAP0"
_STEMS = (
    "ROC MA STD BETA RSQR RESI MAX MIN QTLU QTLD RANK RSV IMAX IMIN IMXD CORR CORD CNTP CNTN CNTD SUMP SUMN SUMD VMA VSTD WVMA "
    "VSUMP VSUMN VSUMD"
)
_ROLLING = " ".join(f"{stem}{window}" for stem in _STEMS.split() for window in (5, 10, 20, 30, 60))

named_set("alpha158", f"{_BARS} {_ROLLING}")
named_set("alpha30", f"{_BARS} {' '.join(_ROLLING.split()[:17])}")
