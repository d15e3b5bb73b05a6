"""Bars from a file for commands that work without a database: read, judged, refused when nothing is left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.market.calendars import infer_calendars
from tidemill.market.raw_bars import match_columns, raw_bars
from tidemill.market.tables import is_table, stem, table_chunks, table_columns
from tidemill.quality.bars import validate_bars

if TYPE_CHECKING:
    from tidemill.features.api import FeatureSet, FeatureState

_NUMBERS = ("open", "high", "low", "close", "volume")


def interval_of(times: pl.DataFrame, origin: str = "the bars") -> Interval:
    """The shortest step between two bars of a symbol that is not rare; InputError when no symbol has two bars.

    times: symbol, open_time, sorted. origin: names them in the error.
    """
    step = pl.col("open_time").diff().over("symbol").dt.total_seconds()
    steps = times.select(step.alias("step")).filter(pl.col("step") > 0)["step"].value_counts().sort("count", descending=True)
    if steps.is_empty():
        raise InputError(f"No symbol of {origin} has two bars, so the interval is unknown. Give a longer history.")
    return Interval(int(steps["step"][0]))


def read_raw(path: Path) -> pl.DataFrame:
    """Raw rows of one CSV or Parquet file with the columns of `data import`; a cell that cannot be read is null."""
    if not path.is_file():
        raise InputError(f"The file {path} does not exist. Check the path.")
    if not is_table(path):
        raise InputError(f"{path} is not a .csv, .csv.gz or .parquet file. Convert it to one of these.")
    matched = match_columns(table_columns(path), path)
    chunks = (
        raw_bars(chunk, matched, symbol=stem(path), interval=None) for chunk in table_chunks(path, list(matched.values()))
    )
    return pl.concat(chunks, how="diagonal_relaxed")


def read_bars(path: Path, interval: Interval | None = None) -> tuple[pl.DataFrame, Interval, int]:
    """Bars of a file, their interval, and how many rows were refused by the rules of `data import`.

    Raises InputError when no row is left.
    """
    raw = read_raw(path)
    length = interval or interval_of(raw.select("symbol", "open_time").drop_nulls().sort("symbol", "open_time"), str(path))
    checked = validate_bars(
        raw, interval=length, calendar=infer_calendars(raw, length), now=datetime.now(UTC), source=path.name
    )
    if checked.good.is_empty():
        worst = next(iter(checked.reasons()), "unknown")
        raise InputError(f"{path} holds no usable bar; most rows were rejected as {worst.replace('_', ' ')}.")
    return checked.good, length, checked.quarantine.height


def read_panel(path: Path) -> pl.DataFrame:
    """Bars of a file exactly as they stand, for features, whose rules cover NaN, halts and zero volume.

    Sorted by symbol and time; a cell that is not a number becomes NaN. InputError for a row without symbol or time.
    """
    raw = read_raw(path)
    lost = raw.filter(pl.col("symbol").is_null() | pl.col("open_time").is_null())
    if lost.height:
        raise InputError(f"{path}, row {lost['source_line'][0]}, has no readable symbol or time. Correct or remove it.")
    quoted = ("quote_volume",) if "quote_volume" in raw.columns else ()
    numbers = [pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in (*_NUMBERS, *quoted)]
    return raw.select("symbol", "open_time", *numbers).sort("symbol", "open_time")


def compute_streaming(bars: pl.DataFrame, features: FeatureSet, left_out: dict[str, str]) -> pl.DataFrame:
    """What `features.api.compute` answers, made by stepping bar after bar over all symbols: the same bits, as live.

    left_out: takes feature → reason for each function of a module that fails.
    """
    if not features.functions:
        return stepped(bars, features)[0]
    from tidemill.features.functions import stream_functions

    own = stream_functions(bars, features, left_out)
    whole = pl.concat([stepped(bars, features.compiled)[0], own.drop("symbol", "open_time")], how="horizontal")
    return whole.select("symbol", "open_time", *(name for name in features.names if name in whole.columns))


def stepped(bars: pl.DataFrame, features: FeatureSet, state: FeatureState | None = None) -> tuple[pl.DataFrame, FeatureState]:
    """The features of `bars`, taken bar after bar from `state` on, and the state after them."""
    import numpy as np

    from tidemill.features.api import FeatureStream
    from tidemill.features.expression import CONTEXT
    from tidemill.features.prices import average_price

    ordered = bars.sort("symbol", "open_time")
    symbols = ordered["symbol"].unique(maintain_order=True)
    place = symbols.to_frame().with_row_index("place")
    rows = ordered.with_row_index("row").join(place, on="symbol").sort("open_time", "row")
    values = np.stack([ordered[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in _NUMBERS])
    quoted = ordered["quote_volume"].cast(pl.Float64).to_numpy() if "quote_volume" in ordered.columns else None
    vwap = average_price(values[1], values[2], values[3], values[4], quoted)
    beside = {name: ordered[name].cast(pl.Float64).to_numpy() for name in CONTEXT if name in ordered.columns}
    names = symbols.to_list() if state is None else sorted({*symbols, *state.symbols})
    at_name = np.array([names.index(symbol) for symbol in symbols], dtype=np.int64)
    stream, result = FeatureStream(features, names, state), np.empty((ordered.height, len(features.names)))
    for _, slot in rows.group_by("open_time", maintain_order=True):
        row, at = slot["row"].to_numpy(), at_name[slot["place"].to_numpy()]
        present = np.zeros(len(names), dtype=np.bool_)
        present[at] = True
        taken = np.full((6, len(names)), np.nan)
        taken[:5, at], taken[5, at] = values[:, row], vwap[row]
        opened, high, low, close, volume, average = taken
        context = {name: np.full(len(names), np.nan) for name in beside}
        for name, column in beside.items():
            context[name][at] = column[row]
        time = slot["open_time"][0]
        result[row] = stream.step(opened, high, low, close, volume, average, present, open_time=time, context=context)[at]
    columns = [pl.Series(name, np.ascontiguousarray(result[:, at])) for at, name in enumerate(features.names)]
    return ordered.select("symbol", "open_time").hstack(columns), stream.state()
