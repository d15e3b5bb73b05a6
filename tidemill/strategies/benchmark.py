"""What a strategy is compared with: something bought once and held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidemill.calendars import LONGEST_CLOSED
from tidemill.domain.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    import polars as pl

EQUAL_WEIGHT = "equal_weight"
_WANTED = "A benchmark is a symbol with bars in the range that is tested; correct `benchmark`."


def benchmark_weights(bars: pl.DataFrame, benchmark: str, calendars: Mapping[str, str] | None = None) -> pl.DataFrame:
    """Weights frame that buys at the first time of `bars` and then holds.

    benchmark: `equal_weight`, all symbols that have a bar at the first time, or one symbol. What is listed later is
    not bought, since a holder has no cash left. calendars: of the symbols; the first time is that of all symbols of one
    calendar, since not all markets open on one day; one that begins later than any market is closed for is listed later.
    Raises UnknownNameError for anything else.
    """
    import polars as pl

    if bars.is_empty():
        raise InputError("There are no bars to compare with. Check the symbols and the dates.")
    if benchmark == EQUAL_WEIGHT:
        kind = pl.col("symbol").replace_strict(dict(calendars or {}), default="", return_dtype=pl.String)
        start = pl.col("open_time").min()
        begins = (pl.col("open_time") == start.over(kind)) & (start.over(kind) - start <= LONGEST_CLOSED)
        first = bars.filter(begins).select("symbol", "open_time").sort("symbol")
        return first.with_columns(pl.lit(1.0 / first.height).alias("weight"))
    own = bars.filter(pl.col("symbol") == benchmark)
    if own.is_empty():
        choices = (EQUAL_WEIGHT, *sorted(bars.get_column("symbol").unique()))
        raise UnknownNameError("benchmark", benchmark, choices, _WANTED)
    return own.select("symbol", pl.col("open_time").min()).head(1).with_columns(pl.lit(1.0).alias("weight"))
