"""Attribution: a book's profit taken apart by cost, market, symbol and engine.

Convention: arithmetic, in cash. The account is one stream of cash and marks, so profits of parts and of periods add up without
linking; `return` is the profit over the starting capital, and adds up alike. Within each part the rows add up to the total.

- costs: what the same trades would have earned for nothing, and fees, slippage and borrow below zero.
- market: beta × the market's return × the equity at the start of each period; selection is what is left before costs. Beta is
  the ordinary least-squares slope over the whole range, so it describes and does not predict.
- symbols: all cash and marks of one symbol, after its own costs.
- engines: each symbol's profit shared among the engines that spoke for its position (`engine_shares`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tidemill.metrics.returns import Floats

if TYPE_CHECKING:
    import polars as pl

TOTAL, COSTS, MARKET, SYMBOLS, ENGINES = "total", "costs", "market", "symbols", "engines"


class Earned(NamedTuple):
    """What a book earned. equity: at each close, starting capital first being `capital`. Costs are cash above zero.

    symbols: symbol, profit (net). profit: by period, net, one for each of `equity`.
    """

    capital: float
    equity: Floats
    fees: float
    slippage: float
    borrow: float
    symbols: pl.DataFrame


def market_beta(returns: Floats, market: Floats) -> float:
    """Slope of `returns` on `market` over the periods in which both are known; 0 where the market stands still."""
    known = np.isfinite(returns) & np.isfinite(market)
    own, base = returns[known], market[known]
    if own.size < 2:
        return 0.0
    base = base - base.mean()
    variance = float((base * base).sum())
    return float((base * (own - own.mean())).sum()) / variance if variance > 1e-18 * base.size else 0.0


def attribution(earned: Earned, market: Floats | None, engines: pl.DataFrame | None = None) -> tuple[pl.DataFrame, float]:
    """part, name, profit, return for every part, and beta.

    market: its return over each period, aligned with `earned.equity` (NaN where not known); None leaves the part out.
    engines: engine, profit; None leaves the part out.
    """
    import polars as pl

    total = float(earned.equity[-1]) - earned.capital
    paid = {"fees": -earned.fees, "slippage": -earned.slippage, "borrow": -earned.borrow}
    spent = sum(paid.values())
    rows = [
        (TOTAL, "net", total),
        (COSTS, "before costs", total - spent),
        *((COSTS, name, cash) for name, cash in paid.items()),
    ]
    beta = 0.0
    if market is not None:
        before = np.concatenate(([earned.capital], earned.equity[:-1]))
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = market_beta(np.where(before > 0.0, earned.equity / before - 1.0, np.nan), market)
        ridden = float(beta * (np.nan_to_num(market, nan=0.0) * before).sum())
        rows += [(MARKET, "market", ridden), (MARKET, "selection", total - spent - ridden), (MARKET, "costs", spent)]
    rows += [(SYMBOLS, symbol, profit) for symbol, profit in earned.symbols.select("symbol", "profit").iter_rows()]
    if engines is not None:
        rows += [(ENGINES, engine, profit) for engine, profit in engines.select("engine", "profit").iter_rows()]
    frame = pl.DataFrame(rows, schema={"part": pl.String, "name": pl.String, "profit": pl.Float64}, orient="row")
    return frame.with_columns((pl.col("profit") / earned.capital).alias("return")), beta


def engine_shares(signals: pl.DataFrame, ranks: pl.DataFrame, weights: dict[str, float]) -> pl.DataFrame:
    """symbol, open_time and one column for each engine: its share in having wanted each position of `signals`.

    signals: symbol, open_time, weight; rows without a position are left out. ranks: symbol, open_time and each engine's rank,
    centred at 0, null where it did not score. An engine supports a position with weight × rank where that has the position's
    sign, and not at all where it has the other; its share is its support over that of all. Where none supports it (a hedge, a
    rule of the strategy) all share alike. Shares lie in 0 … 1 and add up to 1.
    """
    import polars as pl

    held = signals.filter(pl.col("weight").is_not_null() & (pl.col("weight") != 0.0))
    joined = held.join(ranks, on=["symbol", "open_time"], how="left", maintain_order="left")
    sign = pl.col("weight").sign()
    joined = joined.with_columns(
        (pl.col(engine).fill_null(0.0) * weight * sign).clip(lower_bound=0.0).alias(engine)
        for engine, weight in weights.items()
    )
    whole = pl.sum_horizontal(*weights)
    alike = 1.0 / max(len(weights), 1)
    return joined.with_columns(whole.alias("whole")).select(
        "symbol",
        "open_time",
        *(pl.when(pl.col("whole") > 0.0).then(pl.col(name) / pl.col("whole")).otherwise(alike).alias(name) for name in weights),
    )


def by_engine(cells: pl.DataFrame, shares: pl.DataFrame, engines: tuple[str, ...]) -> pl.DataFrame:
    """engine, profit: the profits of `cells` (time, symbol, profit) shared by who wanted the position.

    A signal of one bar fills in the next, so a bar's profit belongs to the last position asked for before it; what was earned
    after it was given up, on the way out, is still its own.
    """
    import polars as pl

    asked = shares.sort("open_time")
    found = cells.sort("time").join_asof(
        asked,
        left_on="time",
        right_on="open_time",
        by="symbol",
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    alike = 1.0 / max(len(engines), 1)
    sums = found.select((pl.col("profit") * pl.col(name).fill_null(alike)).sum().alias(name) for name in engines)
    return pl.DataFrame(
        {"engine": list(engines), "profit": list(sums.row(0))}, schema={"engine": pl.String, "profit": pl.Float64}
    )
