"""Which datasets there are bars of, which of them holds a symbol, and what is missing in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import AmbiguousNameError, InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import valid_symbol
from tidemill.storage import bar_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from tidemill.storage.postgres import Database


class StoredDataset(msgspec.Struct, frozen=True):
    """Bars of one length at one venue, as a person names them."""

    venue: str
    interval: Interval

    def __str__(self) -> str:
        return f"{self.venue} {self.interval}"

    def fits(self, venue: str | None, interval: Interval | None) -> bool:
        """Whether it is the one that is asked for; None asks for any."""
        return venue in (None, self.venue) and interval in (None, self.interval)


async def stored_datasets(database: Database) -> tuple[StoredDataset, ...]:
    """Everything there are bars of, by venue and interval."""
    return _datasets(await bar_rows.datasets(database))


def _datasets(found: Iterable[tuple[str, str]]) -> tuple[StoredDataset, ...]:
    return tuple(StoredDataset(venue, Interval.parse(length)) for venue, length in found)


async def dataset_of(database: Database, symbol: str, venue: str | None, interval: Interval | None) -> StoredDataset:
    """The one dataset that holds `symbol`. AmbiguousNameError names the choices when several do."""
    found = _datasets(await bar_rows.datasets_of(database, valid_symbol(symbol)))
    if not found:
        raise UnknownNameError("symbol", symbol, hint=await _what_there_is(database))
    fitting = [one for one in found if one.fits(venue, interval)]
    if not fitting:
        raise UnknownNameError(f"dataset of {symbol}", _asked(venue, interval), map(str, found))
    if len(fitting) > 1:
        raise AmbiguousNameError("symbol", symbol, map(str, fitting), "--venue and --interval")
    return fitting[0]


def _asked(venue: str | None, interval: Interval | None) -> str:
    return " ".join(str(part) for part in (venue, interval) if part is not None)


async def _what_there_is(database: Database) -> str:
    known = await stored_datasets(database)
    if known:
        return f"There are bars of these datasets: {', '.join(map(str, known))}."
    return "There are no bars yet: run `tidemill data import` or `tidemill run`."


async def gaps_of(database: Database, *, venue: str | None = None, interval: Interval | None = None) -> pl.DataFrame:
    """Gaps of all or some datasets, newest first: venue, interval, symbol, start, end, missing.

    UnknownNameError when there is no such dataset, InputError when there is none at all.
    """
    import polars as pl

    from tidemill.storage.bars import BarStore

    known, store = await stored_datasets(database), BarStore(database)
    if not known:
        raise InputError("There are no bars yet. Run `tidemill data import` or `tidemill run` first.")
    chosen = [one for one in known if one.fits(venue, interval)]
    if not chosen:
        raise UnknownNameError("dataset", _asked(venue, interval), map(str, known))
    frames = [
        (await store.read_gaps(one.venue, one.interval)).select(
            pl.lit(one.venue).alias("venue"), pl.lit(str(one.interval)).alias("interval"), "symbol", "start", "end", "missing"
        )
        for one in chosen
    ]
    return pl.concat(frames).sort("start", "symbol", descending=[True, False])
