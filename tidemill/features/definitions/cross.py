"""The set `cross`: where a symbol stands among the symbols of its dataset at the same bar time.

Ranks are percentiles, as qlib's CSRankNorm has them (pandas' rank with pct); scores are in sample standard deviations, as in
CSZScoreNorm. Only symbols with a bar at that time take part: in a live row those that arrived by its deadline, which is
recorded.
"""

from tidemill.features.declaration import Declarations
from tidemill.features.operators import close, cs_rank, cs_zscore, log, mean, ref, std, volume

DECLARED = Declarations()
family, feature, named_set = DECLARED.family, DECLARED.feature, DECLARED.named_set

_change = log(close / ref(close, 1))

family(
    "cs_rank_roc_20",
    lambda n: cs_rank(close / ref(close, n) - 1.0),
    unit="0 to 1",
    about="rank of the return over {0} bars among the symbols of the bar time",
)
family(
    "cs_zscore_roc_20",
    lambda n: cs_zscore(close / ref(close, n) - 1.0),
    unit="deviations",
    about="return over {0} bars against the other symbols of the bar time",
)
family(
    "cs_rank_volatility_20",
    lambda n: cs_rank(std(_change, n)),
    unit="0 to 1",
    about="rank of the volatility of {0} bars among the symbols of the bar time",
)
family(
    "cs_rank_turnover_20",
    lambda n: cs_rank(mean(close * volume, n)),
    unit="0 to 1",
    about="rank of the mean traded value of {0} bars among the symbols of the bar time",
)
family(
    "cs_rank_surge_20",
    lambda n: cs_rank(volume / mean(volume, n)),
    unit="0 to 1",
    about="rank of volume over its mean of {0} bars among the symbols of the bar time",
)
family(
    "cs_rank_mean_60",
    lambda n: cs_rank(close / mean(close, n)),
    unit="0 to 1",
    about="rank of close over its mean of {0} bars among the symbols of the bar time",
)
feature("cs_zscore_change", cs_zscore(_change), unit="deviations", about="the bar's log return against the other symbols")

named_set(
    "cross",
    "cs_rank_roc_1 cs_rank_roc_5 cs_rank_roc_20 cs_rank_roc_60 cs_zscore_roc_5 cs_zscore_roc_20 cs_zscore_change "
    "cs_rank_volatility_20 cs_rank_turnover_20 cs_rank_surge_20 cs_rank_mean_60",
)
