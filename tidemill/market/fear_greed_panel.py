"""The Fear & Greed Index beside bars of one's own; nothing is stored."""

from __future__ import annotations

import asyncio

import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.market.fear_greed import DELAY, as_known, fear_greed_source, join_known
from tidemill.market.panel_files import interval_of


def join_source(bars: pl.DataFrame, spec: str) -> pl.DataFrame:
    """Bars of one's own with the index of a source beside them, as it was known at each close; nothing is stored."""
    return join_known(bars, source_index(spec), panel_interval(bars))


def panel_interval(bars: pl.DataFrame) -> Interval:
    """The interval of bars of one's own."""
    return interval_of(bars.select("symbol", "open_time").sort("symbol", "open_time"))


def source_index(spec: str) -> pl.DataFrame:
    """known_at, fear_greed, fear_greed_change_7 of a source; nothing is stored."""

    async def read() -> pl.DataFrame:
        source = fear_greed_source(spec)
        try:
            return await source.values(None)
        finally:
            await source.close()

    return as_known(asyncio.run(read()).with_columns((pl.col("stamp") + DELAY).alias("known_at")))
