"""Looking at what is stored: bars of a symbol, gaps, datasets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from tidemill.domain.errors import AmbiguousNameError, InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import valid_symbol
from tidemill.research.workspace import Workspace


def locate(workspace: Workspace, symbol: str, venue: str | None, interval: Interval | None) -> tuple[str, Interval]:
    """The one dataset that holds `symbol`. AmbiguousNameError names the choices when several do."""
    found = workspace.call(workspace.store.datasets_of, valid_symbol(symbol))
    if not found:
        known = sorted({f"{name} {length}" for name, length in workspace.call(workspace.store.datasets)})
        hint = (
            f"Datasets here: {', '.join(known)}."
            if known
            else "There are no bars yet: run `tidemill data import` or `tidemill run`."
        )
        raise UnknownNameError("symbol", symbol, hint=hint)
    fitting = [
        (name, length) for name, length in found if venue in (None, name) and (interval is None or str(interval) == length)
    ]
    if not fitting:
        raise UnknownNameError(
            "dataset of " + symbol, f"{venue or '*'} {interval or '*'}", (f"{name} {length}" for name, length in found)
        )
    if len(fitting) > 1:
        raise AmbiguousNameError("symbol", symbol, (f"{name} {length}" for name, length in fitting), "--venue and --interval")
    return fitting[0][0], Interval.parse(fitting[0][1])


def bars_of(
    workspace: Workspace,
    symbol: str,
    *,
    venue: str | None = None,
    interval: Interval | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    as_of: datetime | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """Raw bars of one symbol from Postgres, the newest `limit`, ascending; `as_of` gives what was known then."""
    place, length = locate(workspace, symbol, venue, interval)
    store = workspace.store
    return workspace.call(store.read, place, length, symbols=(symbol,), start=start, end=end, as_of=as_of, limit=limit)


def gaps_of(workspace: Workspace, *, venue: str | None = None, interval: Interval | None = None) -> pl.DataFrame:
    """Gaps of all or some datasets, newest first: venue, interval, symbol, start, end, missing."""
    frames = [
        workspace.call(workspace.store.read_gaps, name, Interval.parse(length)).select(
            pl.lit(name).alias("venue"), pl.lit(length).alias("interval"), "symbol", "start", "end", "missing"
        )
        for name, length in workspace.call(workspace.store.datasets)
        if venue in (None, name) and (interval is None or str(interval) == length)
    ]
    if not frames:
        raise InputError(
            "There are no bars of that dataset. Run `tidemill data import` first, or check --venue and --interval."
        )
    return pl.concat(frames).sort("start", "symbol", descending=[True, False])


def lake_bars(workspace: Workspace, venue: str, interval: Interval, symbols: Sequence[str] = ()) -> pl.DataFrame:
    """Bars of a dataset from the lake, sorted by symbol and time."""
    key = f"{venue}.{interval}"
    if key not in workspace.lake.datasets("bars"):
        raise UnknownNameError("dataset", key, workspace.lake.datasets("bars"))
    scan = workspace.lake.scan("bars", key)
    if symbols:
        scan = scan.filter(pl.col("symbol").is_in(list(symbols)))
    frame = scan.sort("symbol", "open_time").collect()
    missing = sorted(set(symbols) - set(frame["symbol"].unique()))
    if missing:
        raise UnknownNameError("symbol in " + key, missing[0])
    return frame
