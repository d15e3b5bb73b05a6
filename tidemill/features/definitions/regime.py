"""The set `regime`: in which state a symbol's volatility and trend are, by its own past alone.

Volatility is the sample standard deviation of log returns; its state is a percentile in its own long window, which is shorter
early in a history. The trend's strength is that of the line through the logarithm of close. The hidden Markov model (Hamilton
1989) is of log returns: first fitted after 252 of them, again every 252, on the last 1,008 before the cut-off but the newest;
its probabilities are filtered, never smoothed.
"""

import math

from tidemill.features.declaration import Declarations
from tidemill.features.expression import Expression
from tidemill.features.operators import close, ema, hmm, log, mean, rank, ratio, ref, rsquare, slope, std

DECLARED = Declarations()
family, named_set = DECLARED.family, DECLARED.named_set

_change = log(close / ref(close, 1))


def _percentile(n: int, long: int) -> Expression:
    return rank(std(_change, n, full=True), long)


def _volatility_state(n: int, long: int) -> Expression:
    percentile = _percentile(n, long)
    # The product keeps what is missing missing: a comparison with NaN is 0.
    return (percentile > 1.0 / 3.0) + (percentile > 2.0 / 3.0) + 0.0 * percentile


def _trend_strength(n: int) -> Expression:
    return slope(log(close), n, full=True) * n / (std(_change, n, full=True) * math.sqrt(n))


def _trend_state(fast: int, slow: int) -> Expression:
    distance = mean(close, fast, full=True) - mean(close, slow, full=True)
    return (distance > 0.0) - (distance < 0.0) + 0.0 * distance


family(
    "vol_percentile_20_126",
    _percentile,
    unit="0 to 1",
    about="percentile of the volatility of {0} bars among those of the last {1} bars",
)
family(
    "vol_state_20_126",
    _volatility_state,
    unit="0, 1 or 2",
    about="lower, middle or upper third of the volatility of {0} bars among those of the last {1} bars",
)
family(
    "vol_ratio_10_60",
    lambda fast, slow: ratio(std(_change, fast, full=True), std(_change, slow, full=True)),
    unit="ratio",
    about="volatility of {0} bars over that of {1}",
)
family(
    "trend_strength_60",
    _trend_strength,
    unit="deviations",
    about="rise of the line through {0} log closes, in deviations of a random walk of that length",
)
family("trend_fit_60", lambda n: rsquare(log(close), n, full=True), unit="0 to 1", about="how well a line fits {0} log closes")
family(
    "trend_state_20_100",
    _trend_state,
    unit="-1, 0 or 1",
    about="whether the mean of {0} closes is above (1) or below (-1) that of {1}",
)
family(
    "trend_gap_20_100",
    lambda fast, slow: (ema(close, fast) - ema(close, slow)) / close,
    unit="ratio",
    about="exponential mean of {0} closes less that of {1}, over close",
)
family(
    "hmm_3_1",
    lambda states, state: hmm(_change, states, state),
    unit="0 to 1",
    about="filtered probability of state {1} of a hidden Markov model of {0} states of log returns, 1 being the calmest",
)
family(
    "hmm_state_3",
    lambda states: hmm(_change, states),
    unit="from 1",
    about="the most probable state of a hidden Markov model of {0} states of log returns, 1 being the calmest",
)

named_set(
    "regime",
    "vol_percentile_20_126 vol_state_20_126 vol_ratio_10_60 trend_strength_60 trend_fit_60 trend_state_20_100 trend_gap_20_100 "
    "hmm_3_1 hmm_3_2 hmm_3_3 hmm_state_3",
)
