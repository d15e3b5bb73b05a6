"""Neutralisation: a step after any strategy that takes the bet on sectors, or on the market, out of its weights.

Only sizes change: a side is scaled down until both are equal, so nothing is bought or shorted that the strategy did not choose,
and neither a cap nor what the venue allows can be broken.

- By sector, while something can be short: in each sector long equals short; a sector with one side alone is closed. While
  nothing can be short: each sector gets the share of the book that it has of the symbols, and no position grows beyond the
  largest one of its time.
- By beta: the betas of the long and of the short side, times their weights, are equal; with one side alone the book is closed.
  Beta is that of the last `window` bars to the equal-weight market of all bars, known at the time; unknown counts as 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Weighed

if TYPE_CHECKING:
    import polars as pl

NO_SECTOR = "(none)"


def checked(spec: NeutraliseSpec) -> NeutraliseSpec:
    """`spec` unchanged if it can be followed, else InputError."""
    if spec.by == "sector" and not (spec.sectors or spec.sector_file):
        raise InputError("Neutralising by sector needs `sectors` (symbol: sector) or a `sector_file` of symbol, sector.")
    if spec.by == "beta" and not 2 <= spec.least <= spec.window <= 10_000:
        raise InputError("Neutralising by beta needs 2 ≤ least ≤ window ≤ 10,000 bars.")
    return spec


def with_sectors(spec: NeutraliseSpec, table: pl.DataFrame) -> NeutraliseSpec:
    """`spec` with the sectors of a table of `symbol, sector` in place of its file. InputError for a wrong table."""
    missing = [name for name in ("symbol", "sector") if name not in table.columns]
    if missing:
        raise InputError(f"The sector file lacks the column {', '.join(missing)}; it needs symbol and sector.")
    rows = table.select("symbol", "sector").drop_nulls()
    if rows["symbol"].is_duplicated().any():
        raise InputError("The sector file names a symbol more than once. Keep one row of each.")
    return msgspec.structs.replace(spec, sectors={str(s): str(k) for s, k in rows.iter_rows()}, sector_file=None)


def neutralised(
    weights: pl.DataFrame, spec: NeutraliseSpec, instruments: Mapping[str, Instrument], bars: pl.DataFrame | None
) -> Weighed:
    """`weights` (symbol, open_time, weight) made neutral time by time; nulls stay null and take no part.

    bars: adjusted; needed for beta alone. Raises InputError where a neutral book cannot exist.
    """
    checked(spec)
    shortable = [symbol for symbol, instrument in instruments.items() if instrument.can_short]
    if spec.by == "sector":
        return _by_sector(weights, spec.sectors, shortable)
    if not weights["symbol"].is_in(shortable).any():
        raise InputError(
            "Neutralising by beta needs something that can be sold short; this venue allows none of these symbols."
        )
    if bars is None:
        raise InputError("Neutralising by beta needs bars beside the predictions.")
    return _by_beta(weights, spec, bars)


def _by_sector(weights: pl.DataFrame, sectors: Mapping[str, str], shortable: list[str]) -> Weighed:
    """Time by time, since what can be short may be listed later."""
    import polars as pl

    both = pl.col("symbol").is_in(shortable).any().over("open_time")
    named = weights.with_columns(
        pl.col("symbol").replace_strict(dict(sectors), default=NO_SECTOR).alias("group"), both.alias("both")
    )
    matched = _matched(named.filter("both"), pl.col("weight"), ["open_time", "group"])
    made = pl.concat([matched.weights, _shared(named.filter(~pl.col("both")))])
    keys = ("symbol", "open_time")
    return Weighed(weights.select(keys).join(made, on=keys, how="left", maintain_order="left"), matched.notes)


def _shared(rows: pl.DataFrame) -> pl.DataFrame:
    """Each group gets the share of the book that it has of the symbols; no position grows beyond the largest of its time."""
    import polars as pl

    weight, group, at = pl.col("weight"), ["open_time", "group"], "open_time"
    share = weight.count().over(group) / weight.count().over(at)
    scale = share * weight.sum().over(at) / weight.sum().over(group)
    made = pl.min_horizontal(weight * scale, weight.max().over(at))
    return rows.select("symbol", "open_time", pl.when(weight > 0.0).then(made).otherwise(weight).alias("weight"))


def _by_beta(weights: pl.DataFrame, spec: NeutraliseSpec, bars: pl.DataFrame) -> Weighed:
    import polars as pl

    from tidemill.strategies.past import betas, past_returns

    past = past_returns(bars)
    times = weights["open_time"].unique().sort()
    rows = []
    for time, at in zip(times, times.dt.epoch("us"), strict=True):
        known = betas(past.window(at, spec.window), spec.least)
        rows.append(pl.DataFrame({"symbol": past.symbols, "beta": known}).with_columns(pl.lit(time).alias("open_time")))
    table = pl.concat(rows) if rows else pl.DataFrame(schema={"symbol": pl.String, "beta": pl.Float64})
    if not rows:
        return Weighed(weights)
    time_type = weights.schema["open_time"]
    found = weights.join(table.with_columns(pl.col("open_time").cast(time_type)), on=["symbol", "open_time"], how="left",
                         maintain_order="left")  # fmt: skip
    beta = pl.col("beta").fill_nan(None).fill_null(1.0)
    return _matched(found, pl.col("weight") * beta, ["open_time"])


def _matched(rows: pl.DataFrame, exposure: pl.Expr, group: list[str]) -> Weighed:
    """Scale the larger side of each group down to the smaller; close the group where a side has no exposure."""
    import polars as pl

    weight = pl.col("weight")
    long = pl.when(weight > 0.0).then(exposure).otherwise(0.0).sum().over(group)
    short = pl.when(weight < 0.0).then(-exposure).otherwise(0.0).sum().over(group)
    smaller = pl.min_horizontal(long, short)
    scale = pl.when(smaller > 0.0).then(smaller / pl.when(weight > 0.0).then(long).otherwise(short)).otherwise(0.0)
    made = rows.select(
        "symbol",
        "open_time",
        pl.when(weight != 0.0).then(weight * scale).otherwise(weight).alias("weight"),
        ((smaller <= 0.0) & (weight != 0.0)).alias("closed"),
        *(name for name in group if name != "open_time"),
    )
    closed = made.filter("closed").select(group).unique().height
    what = "a sector" if "group" in group else "the book"
    times = f"{closed:,} time{'s' * (closed != 1)}"
    notes = (f"{times} {what} was closed, since one of its sides alone cannot be neutral.",) if closed else ()
    return Weighed(made.select("symbol", "open_time", "weight"), notes)
