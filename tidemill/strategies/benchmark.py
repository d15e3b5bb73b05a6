"""What a strategy is compared with: something bought once and held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    import polars as pl

EQUAL_WEIGHT = "equal_weight"


def benchmark_weights(bars: pl.DataFrame, benchmark: str) -> pl.DataFrame:
    """Weights frame that buys at the first time of `bars` and then holds.

    benchmark: `equal_weight`, all symbols that have a bar at the first time, or one symbol. What is listed later is
    not bought, since a holder has no cash left. Raises UnknownNameError for anything else.
    """
    import polars as pl

    if bars.is_empty():
        raise InputError("There are no bars to compare with. Check the symbols and the dates.")
    if benchmark == EQUAL_WEIGHT:
        first = bars.filter(pl.col("open_time") == pl.col("open_time").min()).select("symbol", "open_time").sort("symbol")
        return first.with_columns(pl.lit(1.0 / first.height).alias("weight"))
    own = bars.filter(pl.col("symbol") == benchmark)
    if own.is_empty():
        choices = (EQUAL_WEIGHT, *sorted(bars.get_column("symbol").unique()))
        raise UnknownNameError("benchmark", benchmark, choices)
    return own.select("symbol", pl.col("open_time").min()).head(1).with_columns(pl.lit(1.0).alias("weight"))
