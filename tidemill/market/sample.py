"""The built-in sample: five US stocks, daily, from the PyPI package `bokeh_sampledata` (Quandl WIKI prices, to 2013-03-01)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import lru_cache
from importlib.resources import as_file, files
from importlib.util import find_spec

import polars as pl

from tidemill.calendars import XNYS
from tidemill.config import Settings
from tidemill.domain.errors import ConfigError, InputError, IntegrityError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.market.raw_bars import match_columns, raw_bars
from tidemill.market.tables import table_chunks, table_columns

_PACKAGE = "bokeh_sampledata"
_FILE = "stocks.csv.gz"
_DAY = Interval.parse("1d")
_BORROW_BPS = 50.0


class SampleSource:
    """A `BarSource` of raw daily prices with splits and dividends in `adjusted_close`; interval 1d only."""

    def __init__(self, settings: Settings | None = None) -> None:
        del settings  # every source is made the same way; the sample needs none

    @property
    def venue(self) -> str:
        return "sample"

    def span(self, interval: Interval) -> tuple[datetime, datetime] | None:
        """First and last open time."""
        times = _read()["open_time"]
        first, last = times.min(), times.max()
        return (first, last) if isinstance(first, datetime) and isinstance(last, datetime) else None

    async def instruments(self, symbols: Sequence[str]) -> list[Instrument]:
        """Stocks on New York's calendar that can be borrowed at 50 bps a year. UnknownNameError for any other symbol."""
        known = (await asyncio.to_thread(_read))["symbol"].unique(maintain_order=True).to_list()
        _refuse_unknown(symbols, known)
        return [
            Instrument(venue="sample", symbol=symbol, calendar=XNYS, can_short=True, borrow_bps=_BORROW_BPS)
            for symbol in (symbols or known)
        ]

    async def bars(
        self, symbols: Sequence[str], interval: Interval, start: datetime | None, end: datetime | None
    ) -> AsyncIterator[pl.DataFrame]:
        """Raw bars with start ≤ open_time < end, one frame. InputError for another interval than 1d."""
        if interval != _DAY:
            raise InputError(f"The sample holds daily bars only, not {interval}. Ask for the interval 1d.")
        frame = await asyncio.to_thread(_read)
        _refuse_unknown(symbols, frame["symbol"].unique(maintain_order=True).to_list())
        if symbols:
            frame = frame.filter(pl.col("symbol").is_in(list(symbols)))
        if start is not None:
            frame = frame.filter(pl.col("open_time") >= start)
        if end is not None:
            frame = frame.filter(pl.col("open_time") < end)
        yield frame

    async def close(self) -> None:
        """Nothing is held open."""


def _refuse_unknown(symbols: Sequence[str], known: list[str]) -> None:
    for symbol in symbols:
        if symbol not in known:
            raise UnknownNameError("symbol", symbol, known, hint="They are those of the sample.")


@lru_cache(maxsize=1)
def _read() -> pl.DataFrame:
    if find_spec(_PACKAGE) is None:
        raise ConfigError(f"The package {_PACKAGE} is not installed. Run scripts/run, or pip install {_PACKAGE}.")
    # The package's own modules parse the file into Python lists when they are imported; its data folder is enough here.
    resource = files(_PACKAGE) / "_data" / _FILE
    if not resource.is_file():
        raise IntegrityError(f"The package {_PACKAGE} has no file {_FILE}. Install the version of the constraints file.")
    with as_file(resource) as path:
        matched = match_columns(table_columns(path), path)
        chunks = [raw_bars(chunk, matched, symbol="", interval=_DAY) for chunk in table_chunks(path, list(matched.values()))]
    return pl.concat(chunks)
