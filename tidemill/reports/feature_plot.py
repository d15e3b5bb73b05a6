"""One feature over one symbol's bars, as a line of characters for a terminal or as a picture; of the sample if no other."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.durable import write_file
from tidemill.features.api import compute, feature_set
from tidemill.market.panel_files import read_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tidemill.features.declaration import Features

_BLOCKS = "▁▂▃▄▅▆▇█"
_BARS = 500


def sample_panel() -> pl.DataFrame:
    """The sample's bars, scaled by its adjusted closes: good enough to look at."""
    from tidemill.domain.intervals import Interval
    from tidemill.market.sample import SampleSource

    async def read() -> pl.DataFrame:
        frames = [frame async for frame in SampleSource().bars((), Interval.parse("1d"), None, None)]
        return pl.concat(frames)

    raw = asyncio.run(read()).sort("symbol", "open_time")
    factor = pl.col("adjusted_close") / pl.col("close")
    return raw.select("symbol", "open_time", *(pl.col(name) * factor for name in ("open", "high", "low", "close")), "volume")


def feature_series(
    name: str,
    source: Path | None = None,
    *,
    symbol: str | None = None,
    fear_greed: str | None = None,
    known: Features | None = None,
) -> pl.DataFrame:
    """symbol, open_time, close and `value` of a feature at the last 500 bars of a symbol, computed with all symbols.

    source: CSV or Parquet of bars; the sample's when not given. symbol: the first one when not given.
    known: where the feature is found; None for those that ship.
    Raises InputError for a symbol that is not there, or when the feature cannot be computed.
    """
    bars = sample_panel() if source is None else read_panel(source)
    if fear_greed is not None:
        from tidemill.market.fear_greed_panel import join_source

        bars = join_source(bars, fear_greed)
    symbols = bars["symbol"].unique().sort()
    chosen = symbol or (symbols[0] if len(symbols) else "")
    if chosen not in symbols:
        raise InputError(f"The bars hold no symbol {chosen!r}. Choose one of: {', '.join(symbols.head(8).to_list())}.")
    frame, _ = compute(bars, feature_set(name, known=known))
    joined = frame.join(bars.select("symbol", "open_time", "close"), on=("symbol", "open_time"))
    return (
        joined.filter(pl.col("symbol") == chosen)
        .tail(_BARS)
        .select("symbol", "open_time", "close", pl.col(name).alias("value"))
    )


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """The values as a line of blocks, each the mean of its share; a blank where nothing is known."""
    count = min(width, len(values))
    shares = [values[at * len(values) // count : (at + 1) * len(values) // count] for at in range(count)]
    known = [[value for value in share if value == value] for share in shares]
    means = [sum(share) / len(share) if share else None for share in known]
    told = [mean for mean in means if mean is not None]
    if not told:
        return " " * count
    low, reach = min(told), (max(told) - min(told)) or 1.0
    return "".join(" " if mean is None else _BLOCKS[min(int((mean - low) / reach * 8.0), 7)] for mean in means)


def write_picture(series: pl.DataFrame, name: str, unit: str, path: Path) -> None:
    """The feature below the close of its symbol, as a PNG. InputError where the file cannot be written."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure: Figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    times = series["open_time"].to_list()
    above.plot(times, series["close"].to_list(), linewidth=0.9, color="grey")
    above.set_title(f"{series['symbol'][0] if series.height else ''}: close", loc="left", fontsize=9)
    below.plot(times, series["value"].to_list(), linewidth=1.1)
    below.set_title(f"{name} ({unit})" if unit else name, loc="left", fontsize=9)
    for axes in (above, below):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    try:
        write_file(path, buffer.getvalue())
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc.strerror}. Choose another file.") from exc
