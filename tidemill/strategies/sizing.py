"""The work of `inverse_volatility` and `mean_variance`, apart from their names since it imports numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.domain.market import Instrument
from tidemill.strategies.base import Weighed
from tidemill.strategies.optimise import Bounds, Covariance, optimal_weights, shrunk_covariance
from tidemill.strategies.past import Floats, PastReturns, past_returns, volatility
from tidemill.strategies.ranked import sides

if TYPE_CHECKING:
    import polars as pl

    from tidemill.strategies.sized import InverseVolatilityParams, MeanVarianceParams


class _Choice(NamedTuple):
    """What was ranked at one rebalancing time; arrays over `symbols`. place: their columns among the past returns, −1 for none.
    score: rank with mean 0 and deviation 1, NaN without a prediction.
    """

    at: int
    symbols: list[str]
    place: NDArray[np.int64]
    side: Floats
    score: Floats
    both: bool


def _choices(ranked: pl.DataFrame, past: PastReturns) -> Iterator[_Choice]:
    import polars as pl

    column = {symbol: at for at, symbol in enumerate(past.symbols)}
    count = pl.col("count").cast(pl.Float64)
    score = ((count + 1.0) / 2.0 - pl.col("best")) / ((count * count - 1.0) / 12.0).sqrt()
    scored = ranked.with_columns(score.fill_null(float("nan")).alias("score"), pl.col("open_time").dt.epoch("us").alias("at"))
    for (at,), rows in scored.group_by("at", maintain_order=True):
        symbols = rows["symbol"].to_list()
        place = np.array([column.get(symbol, -1) for symbol in symbols], dtype=np.int64)
        side = rows["side"].cast(pl.Float64).to_numpy()
        yield _Choice(int(str(at)), symbols, place, side, rows["score"].to_numpy(), bool(rows["both"][0]))


def _at(values: Floats, place: NDArray[np.int64]) -> Floats:
    """`values` of the columns at `place`, NaN for none."""
    return np.where(place >= 0, values[place], np.nan)


def _budget(both: bool, gross: float) -> float:
    return gross / 2.0 if both else gross


def _by_inverse(side: Floats, deviation: Floats, budget: float, cap: float) -> Floats:
    """Each side's budget shared in inverse proportion to volatility, each position cut to `cap`."""
    weight = np.zeros_like(side)
    for sign in (1.0, -1.0):
        own = (side == sign) & np.isfinite(deviation)
        if own.any():
            inverse = 1.0 / deviation[own]
            weight[own] = sign * np.minimum(budget * inverse / inverse.sum(), cap)
    return weight


def _frame(made: list[tuple[_Choice, Floats]], ranked: pl.DataFrame) -> pl.DataFrame:
    """One row for each row of `ranked`, in its order."""
    import polars as pl

    weights = np.concatenate([weight for _, weight in made]) if made else np.zeros(0)
    return ranked.select("symbol", "open_time").with_columns(pl.Series("weight", weights, dtype=pl.Float64))


def _left_out(count: int, least: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count:,} times a chosen symbol was left out: fewer than {least} returns, or only equal prices, were known.",)


def inverse_volatility(
    predictions: pl.DataFrame, params: InverseVolatilityParams, instruments: Mapping[str, Instrument], bars: pl.DataFrame
) -> Weighed:
    """Weights in inverse proportion to the volatility of the past."""
    past = past_returns(bars)
    ranked = sides(predictions, params.every, params.quantile, instruments)
    made, unknown = [], 0
    for choice in _choices(ranked, past):
        deviation = _at(volatility(past.window(choice.at, params.window), params.least), choice.place)
        unknown += int(((choice.side != 0.0) & ~np.isfinite(deviation)).sum())
        budget = _budget(choice.both, params.gross)
        made.append((choice, _by_inverse(choice.side, deviation, budget, params.max_weight)))
    return Weighed(_frame(made, ranked), _left_out(unknown, params.least))


def mean_variance(
    predictions: pl.DataFrame, params: MeanVarianceParams, instruments: Mapping[str, Instrument], bars: pl.DataFrame
) -> Weighed:
    """Weights that maximise expected return less λ times variance, under the caps; the sides keep their sign.

    μ of a symbol is ic × volatility × score (Grinold 1994, "Alpha is volatility times IC times score"), so engines of any
    scale are treated alike; the covariance is shrunk (Ledoit and Wolf 2004). Where there is a short side the book is
    neutral in cash. Where the solver finds nothing, the weights are those of `inverse_volatility`, and a note says so.
    """
    past = past_returns(bars)
    ranked = sides(predictions, params.every, params.quantile, instruments)
    estimate: Covariance | None = None
    made, unknown, failed = [], 0, 0
    for number, choice in enumerate(_choices(ranked, past)):
        if estimate is None or number % params.refit == 0:
            estimate = shrunk_covariance(past.window(choice.at, params.window), params.least)
        deviation = _at(estimate.deviation, choice.place)
        chosen = _problem(choice, deviation, params.most)
        unknown += int(((choice.side != 0.0) & ~np.isfinite(deviation)).sum())
        budget, weight = _budget(choice.both, params.gross), np.zeros(len(choice.side))
        if chosen.size:
            side, place, own = choice.side[chosen], choice.place[chosen], deviation[chosen]
            # A symbol alone has no rank: its own side is the whole opinion.
            score = np.where(np.isfinite(choice.score[chosen]), choice.score[chosen], side)
            bounds = Bounds(side, budget, params.max_weight, neutral=choice.both and len(choice.side) > 1)
            found = optimal_weights(params.ic * own * score, estimate.among(place), bounds, params.risk_aversion)
            failed += found is None
            weight[chosen] = _by_inverse(side, own, budget, params.max_weight) if found is None else found
        made.append((choice, weight))
    told = f"The solver found no weights at {failed:,} of {len(made):,} times; inverse volatility was used."
    solver = (told,) if failed else ()
    return Weighed(_frame(made, ranked), (*_left_out(unknown, params.least), *solver))


def _problem(choice: _Choice, deviation: Floats, most: int) -> NDArray[np.int64]:
    """Indices of the chosen symbols that take part: of those with a known risk, the `most` with the strongest scores."""
    able = np.flatnonzero((choice.side != 0.0) & np.isfinite(deviation))
    if choice.both and len({*choice.side[able]}) < 2:
        return able[:0] if len(choice.side) > 1 else able  # one side alone would be a bet on the market
    strength = np.nan_to_num(np.abs(choice.score[able]), nan=0.0)
    return np.sort(able[np.argsort(-strength, kind="stable")[:most]])
