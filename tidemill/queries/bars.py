"""Bars of a symbol from Postgres, of a dataset from the lake. polars is imported only by what answers with a frame."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.queries.datasets import StoredDataset, dataset_of
from tidemill.storage.bar_rows import BarRow, newest_rows, span_of

if TYPE_CHECKING:
    import polars as pl

    from tidemill.storage.lake import Lake
    from tidemill.storage.postgres import Database

# Above this many bars reading through polars is quicker than row by row, its import included.
_FEW = 5_000


class BarSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Bars of one symbol: start ≤ open_time < end, as known at `as_of`, of these the newest `limit` (None: all).

    venue, interval: needed where the symbol exists more than once.
    """

    symbol: str
    venue: str | None = None
    interval: Interval | None = None
    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None
    limit: int | None = None


class SymbolBars(msgspec.Struct, frozen=True):
    """Raw bars of one symbol, ascending, and the dataset that they are of."""

    dataset: StoredDataset
    rows: tuple[BarRow, ...]


async def bar_rows_of(database: Database, wanted: BarSelection) -> SymbolBars:
    """The raw bars of one symbol from Postgres. InputError when none are in the range."""
    dataset = await dataset_of(database, wanted.symbol, wanted.venue, wanted.interval)
    if wanted.limit is None or wanted.limit > _FEW:
        rows = [BarRow(*row) for row in (await _frame(database, dataset, wanted)).iter_rows()]
    else:
        rows = await newest_rows(
            database,
            dataset.venue,
            dataset.interval,
            wanted.symbol,
            limit=wanted.limit,
            start=wanted.start,
            end=wanted.end,
            as_of=wanted.as_of,
        )
    if not rows:
        raise await _none_there(database, dataset, wanted)
    return SymbolBars(dataset, tuple(rows))


async def bars_of(database: Database, wanted: BarSelection) -> pl.DataFrame:
    """What `bar_rows_of` answers, as a frame of BAR_COLUMNS."""
    dataset = await dataset_of(database, wanted.symbol, wanted.venue, wanted.interval)
    frame = await _frame(database, dataset, wanted)
    if frame.is_empty():
        raise await _none_there(database, dataset, wanted)
    return frame


async def _frame(database: Database, dataset: StoredDataset, wanted: BarSelection) -> pl.DataFrame:
    from tidemill.storage.bars import BarStore

    return await BarStore(database).read(
        dataset.venue,
        dataset.interval,
        symbols=(wanted.symbol,),
        start=wanted.start,
        end=wanted.end,
        as_of=wanted.as_of,
        limit=wanted.limit,
    )


async def _none_there(database: Database, dataset: StoredDataset, wanted: BarSelection) -> InputError:
    span = await span_of(database, dataset.venue, dataset.interval, wanted.symbol)
    known = "" if wanted.as_of is None else f", as known on {wanted.as_of:%Y-%m-%d %H:%M}"
    form = "%Y-%m-%d" if dataset.interval.seconds % 86_400 == 0 else "%Y-%m-%d %H:%M"
    bounds = f"from {span.first.strftime(form)} to {span.last.strftime(form)}"
    left = f"Its bars {bounds} left the source on {span.left:%Y-%m-%d %H:%M}; ask `--as-of` a time before." if span.left else ""
    return InputError(
        f"There is no {dataset.interval} bar of {wanted.symbol} at {dataset.venue} in that range{known}. "
        f"{left or f'It has bars {bounds}.'}"
    )


async def lake_bars(lake: Lake, venue: str, interval: Interval, symbols: Sequence[str] = ()) -> pl.DataFrame:
    """Bars of a dataset from the lake, sorted by symbol and time. UnknownNameError for what is not there."""
    return await asyncio.to_thread(_lake_bars, lake, f"{venue}.{interval}", symbols)


def _lake_bars(lake: Lake, key: str, symbols: Sequence[str]) -> pl.DataFrame:
    import polars as pl

    known = lake.datasets("bars")
    if key not in known:
        raise UnknownNameError("dataset", key, known, hint="" if known else "Run `tidemill data import` first.")
    scan = lake.scan("bars", key)
    if symbols:
        scan = scan.filter(pl.col("symbol").is_in(list(symbols)))
    frame = scan.sort("symbol", "open_time").collect()
    missing = sorted(set(symbols) - set(frame["symbol"].unique()))
    if missing:
        raise UnknownNameError(f"symbol in {key}", missing[0])
    return frame
