"""Sizing by risk what predictions chose: what `inverse_volatility` and `mean_variance` share.

Both choose as `quantile` does and estimate from the last `window` bars up to the rebalancing time, that bar included and
nothing later. A chosen symbol with fewer than `least` returns there (a late listing), or without any spread, is left out;
what has no prediction any more (a dead symbol) gets 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tidemill.strategies.base import require

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from tidemill.strategies.past import Floats, PastReturns


def require_window(window: int, least: int) -> None:
    """What holds for the past that risk is estimated from; as `require`."""
    require(2 <= least <= window <= 10_000, "least must be at least 2 and at most window, window at most 10,000")


class Choice(NamedTuple):
    """What was ranked at one rebalancing time; arrays over `symbols`. place: their columns among the past returns, −1 for none.
    score: rank with mean 0 and deviation 1, NaN without a prediction.
    """

    at: int
    symbols: list[str]
    place: NDArray[np.int64]
    side: Floats
    score: Floats
    both: bool

    def own(self, values: Floats) -> Floats:
        """`values` of the columns of the past, by symbol; NaN for none."""
        import numpy as np

        return np.where(self.place >= 0, values[self.place], np.nan)

    def budget(self, gross: float) -> float:
        """Of each side."""
        return gross / 2.0 if self.both else gross


def choices(ranked: pl.DataFrame, past: PastReturns) -> Iterator[Choice]:
    """The rebalancing times of `ranking.sides`, in order."""
    import numpy as np
    import polars as pl

    column = {symbol: at for at, symbol in enumerate(past.symbols)}
    count = pl.col("count").cast(pl.Float64)
    score = ((count + 1.0) / 2.0 - pl.col("best")) / ((count * count - 1.0) / 12.0).sqrt()
    scored = ranked.with_columns(score.fill_null(float("nan")).alias("score"), pl.col("open_time").dt.epoch("us").alias("at"))
    for (at,), rows in scored.group_by("at", maintain_order=True):
        symbols = rows["symbol"].to_list()
        place = np.array([column.get(symbol, -1) for symbol in symbols], dtype=np.int64)
        side = rows["side"].cast(pl.Float64).to_numpy()
        yield Choice(int(str(at)), symbols, place, side, rows["score"].to_numpy(), bool(rows["both"][0]))


def by_inverse(side: Floats, deviation: Floats, budget: float, cap: float) -> Floats:
    """Each side's budget shared in inverse proportion to volatility, each position cut to `cap`."""
    import numpy as np

    weight = np.zeros_like(side)
    for sign in (1.0, -1.0):
        own = (side == sign) & np.isfinite(deviation)
        if own.any():
            inverse = 1.0 / deviation[own]
            weight[own] = sign * np.minimum(budget * inverse / inverse.sum(), cap)
    return weight


def frame_of(weights: list[Floats], ranked: pl.DataFrame) -> pl.DataFrame:
    """One row for each row of `ranked`, in its order."""
    import numpy as np
    import polars as pl

    values = np.concatenate(weights) if weights else np.zeros(0)
    return ranked.select("symbol", "open_time").with_columns(pl.Series("weight", values, dtype=pl.Float64))


def left_out(count: int, least: int) -> tuple[str, ...]:
    """A sentence about the chosen symbols whose risk is not known; empty where there is none."""
    if not count:
        return ()
    times = f"{count:,} time{'s' * (count != 1)}"
    return (f"{times} a chosen symbol was left out: fewer than {least} returns, or only equal prices, were known.",)
