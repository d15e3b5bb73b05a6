"""The operators that a feature may be written with.

Windows count a symbol's own bars, the current one included. NaN inside a window is skipped: a value needs one number in the
window (two for a spread or a slope), as in qlib; `full=True` asks for a number in every place, as TA-Lib does. What would be
infinite is NaN. `ema`, `wilder`, `adaptive`, `cumulative`, `parabolic_sar` and `hmm` are recursive: their value depends on
all of the history, and a NaN input gives NaN once and advances nothing. `cs_rank` and `cs_zscore` compare the symbols of one
bar time; they and `hmm` can only be the outermost operators of a feature.
"""

from tidemill.domain.errors import InputError
from tidemill.features.expression import INPUTS, MAX_WINDOW, Expression, Operand, as_expression, combine

(
    open, high, low, close, volume, vwap,
    day_of_week, day_of_month, days_left_in_month, month, hour_sine, hour_cosine,
    fear_greed, fear_greed_change_7, sentiment_mean, sentiment_count, sentiment_surprise,
) = (Expression("column", (), (float(index),)) for index in range(len(INPUTS)))  # fmt: skip


def _window(number: int, least: int = 1) -> float:
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= MAX_WINDOW:
        raise InputError(f"A window of {number!r} bars is not possible. Use a whole number from {least} to {MAX_WINDOW}.")
    return float(number)


def _over(operator: str, x: Operand, window: int, full: bool, *more: float) -> Expression:
    return Expression(operator, (as_expression(x),), (_window(window), float(window if full else 1), *more))


def abs(x: Operand) -> Expression:
    """|x|."""
    return combine("absolute", x)


def log(x: Operand) -> Expression:
    """Natural logarithm; NaN for x ≤ 0."""
    return combine("log", x)


def sqrt(x: Operand) -> Expression:
    """Square root; NaN for x < 0."""
    return combine("square_root", x)


def maximum(x: Operand, y: Operand) -> Expression:
    """The greater of two values; NaN if either is."""
    return combine("maximum", x, y)


def minimum(x: Operand, y: Operand) -> Expression:
    """The smaller of two values; NaN if either is."""
    return combine("minimum", x, y)


def where(condition: Operand, x: Operand, y: Operand) -> Expression:
    """x where condition is a number other than 0, else y."""
    return combine("where", condition, x, y)


def ratio(x: Operand, y: Operand) -> Expression:
    """x / y, and 0 where y is 0, which is TA-Lib's answer to a range without width."""
    return where(combine("not_equal", y, 0.0), combine("divide", x, y), y)


def ref(x: Operand, periods: int) -> Expression:
    """x as it was `periods` bars ago. A negative number looks ahead: it can be written, and is refused when computed."""
    if isinstance(periods, bool) or not isinstance(periods, int) or not -MAX_WINDOW <= periods <= MAX_WINDOW:
        raise InputError(f"ref() cannot go back {periods!r} bars. Use a whole number up to {MAX_WINDOW}.")
    return Expression("ref", (as_expression(x),), (float(periods),)) if periods else as_expression(x)


def delta(x: Operand, periods: int) -> Expression:
    """x less its value `periods` bars ago."""
    return as_expression(x) - ref(x, periods)


def sum(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Sum over the window."""
    return _over("sum", x, window, full)


def mean(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Arithmetic mean; of equal values exactly that value."""
    return _over("mean", x, window, full)


def std(x: Operand, window: int, *, ddof: int = 1, full: bool = False) -> Expression:
    """Standard deviation; ddof 1 is the sample's (pandas, qlib), 0 the population's (TA-Lib)."""
    if ddof not in (0, 1):
        raise InputError(f"ddof must be 0 or 1, not {ddof!r}.")
    return _over("std", x, window, full, float(ddof))


def wma(x: Operand, window: int) -> Expression:
    """Mean weighted linearly, the newest most; needs every value of the window."""
    return _over("wma", x, window, True)


def slope(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Least-squares slope of x on bar number, a bar."""
    return _over("slope", x, window, full)


def rsquare(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Share of variance explained by the line of `slope`; NaN where std ≤ 1e-9 · |mean|."""
    return _over("rsquare", x, window, full)


def resid(x: Operand, window: int, *, full: bool = False) -> Expression:
    """The newest value less the line of `slope` at the newest bar."""
    return _over("resid", x, window, full)


def corr(x: Operand, y: Operand, window: int, *, full: bool = False) -> Expression:
    """Pearson correlation over bars where both are numbers; NaN where either has std ≤ 1e-9 · |mean|."""
    return Expression("corr", (as_expression(x), as_expression(y)), (_window(window), float(window if full else 1)))


def max(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Greatest value of the window."""
    return _over("max", x, window, full)


def min(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Smallest value of the window."""
    return _over("min", x, window, full)


def argmax(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Place of the greatest value, 1 being the oldest bar there is in the window; of equals the oldest."""
    return _over("argmax", x, window, full)


def argmin(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Place of the smallest value, 1 being the oldest bar there is in the window; of equals the oldest."""
    return _over("argmin", x, window, full)


def since_max(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Bars since the greatest value of the window, 0 for the current bar; of equals the newest."""
    return _over("since_max", x, window, full)


def since_min(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Bars since the smallest value of the window, 0 for the current bar; of equals the newest."""
    return _over("since_min", x, window, full)


def rank(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Percentile of the newest value in its window, in (0, 1]; equals share their average."""
    return _over("rank", x, window, full)


def quantile(x: Operand, window: int, q: float, *, full: bool = False) -> Expression:
    """Quantile q in [0, 1], linear between neighbours."""
    if not 0.0 <= q <= 1.0:
        raise InputError(f"A quantile must lie between 0 and 1, not at {q!r}.")
    return _over("quantile", x, window, full, float(q))


def mean_deviation(x: Operand, window: int, *, full: bool = False) -> Expression:
    """Mean absolute distance to the mean of the window."""
    return _over("mean_deviation", x, window, full)


def ema(x: Operand, span: int, *, skip: int = 0) -> Expression:
    """Exponential mean, weight 2 / (span + 1), seeded with the mean of `span` values after `skip` unused ones (TA-Lib)."""
    _window(skip, least=0)
    return Expression("smooth", (as_expression(x),), (_window(span), float(span), 2.0 / (span + 1.0), float(skip)))


def wilder(x: Operand, window: int, *, short_seed: bool = False) -> Expression:
    """Wilder's mean, weight 1 / window, seeded with the mean of the first `window` values.

    short_seed: seeded with the sum of the first window - 1 values over `window`, as Wilder's directional movement is in TA-Lib.
    """
    seed = _window(window) - 1.0 if short_seed else float(window)
    return Expression("smooth", (as_expression(x),), (seed, float(window), 1.0 / window, 0.0))


def adaptive(x: Operand, start: Operand, weight: Operand) -> Expression:
    """y + weight · (x - y), the first y being `start`; begins where x, start and weight are numbers (Kaufman)."""
    return combine("adaptive", x, start, weight)


def cumulative(x: Operand) -> Expression:
    """Sum of all values so far."""
    return combine("cumulative", x)


def parabolic_sar(
    high_price: Operand, low_price: Operand, acceleration: float = 0.02, maximum_acceleration: float = 0.2
) -> Expression:
    """Wilder's parabolic stop and reverse; starts at the second bar, in the direction of the greater movement, as in TA-Lib."""
    return Expression(
        "sar", (as_expression(high_price), as_expression(low_price)), (float(acceleration), float(maximum_acceleration))
    )


def cs_rank(x: Operand) -> Expression:
    """Percentile of x among the symbols present at the bar time, in (0, 1]; equals share their average, NaN takes no part."""
    return Expression("cs_rank", (as_expression(x),))


def cs_zscore(x: Operand) -> Expression:
    """x less the mean over the symbols present at the bar time, over their sample standard deviation; NaN takes no part.

    NaN where fewer than two numbers are present or the deviation is ≤ 1e-9 · |mean|.
    """
    return Expression("cs_zscore", (as_expression(x),))


def hmm(
    x: Operand, states: int, state: int = 0, *, refit: int = 252, window: int = 1008, minimum: int = 252, purge: int = 1
) -> Expression:
    """Filtered probability of a state of a Gaussian hidden Markov model of x, fitted for each symbol on its own past.

    states: 2 or 3, ordered by variance. state: which one's probability, 1 being the calmest; 0 gives the number of the most
    probable. The model is fitted when `minimum` + `purge` values came, then every `refit` values, on the last `window` of
    them but the `purge` newest, and serves from the next bar on; NaN before. Probabilities are filtered (Hamilton 1989),
    never smoothed.
    """
    if states not in (2, 3) or isinstance(state, bool) or state not in range(states + 1):
        raise InputError(
            f"A hidden Markov model of {states!r} states has no state {state!r}. Use 2 or 3 states, and one of them."
        )
    if not 10 * states <= minimum <= window or not 0 <= purge <= minimum:
        raise InputError(f"A model needs {10 * states} ≤ minimum ≤ window values, and a purge from 0 to minimum.")
    numbers = (states, state, _window(refit), _window(window), _window(minimum), purge)
    return Expression("hmm", (as_expression(x),), tuple(float(number) for number in numbers))
