"""The built-in sample: what it holds and what it refuses."""

import asyncio
import importlib.resources
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tidemill.calendars import XNYS
from tidemill.domain.errors import InputError, IntegrityError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.market import sample
from tidemill.market.sample import SampleSource
from tidemill.quality.bars import validate_bars

DAY = Interval.parse("1d")


def read(
    symbols: tuple[str, ...] = (), start: datetime | None = None, end: datetime | None = None, interval: str = "1d"
) -> pl.DataFrame:
    async def collect() -> pl.DataFrame:
        return pl.concat([frame async for frame in SampleSource().bars(symbols, Interval.parse(interval), start, end)])

    return asyncio.run(collect())


def test_the_sample_is_five_stocks_without_a_defect() -> None:
    outcome = validate_bars(read(), interval=DAY, calendar=XNYS, now=datetime(2026, 1, 1, tzinfo=UTC), source="sample")
    assert outcome.quarantine.height == 0
    assert outcome.flags.height == 0
    assert dict(outcome.good["symbol"].value_counts().iter_rows()) == {
        "AAPL": 3270,
        "FB": 196,
        "GOOG": 2148,
        "IBM": 3270,
        "MSFT": 3270,
    }


def test_symbols_and_times_narrow_it() -> None:
    frame = read(("IBM", "AAPL"), datetime(2013, 2, 28, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC))
    assert frame.select("symbol", "close").rows() == [("AAPL", 441.4), ("IBM", 200.83)]


def test_its_instruments_can_be_shorted_at_a_cost() -> None:
    source = SampleSource()
    instruments = asyncio.run(source.instruments([]))
    assert source.venue == "sample"
    assert [item.symbol for item in instruments] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    assert {(item.calendar, item.can_short, item.borrow_bps) for item in instruments} == {(XNYS, True, 50.0)}
    asyncio.run(source.close())


def test_other_symbols_and_intervals_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="AAPL, FB, GOOG, IBM, MSFT"):
        read(("TSLA",))
    with pytest.raises(UnknownNameError):
        asyncio.run(SampleSource().instruments(["TSLA"]))
    with pytest.raises(InputError, match="daily bars only, not 1h"):
        read(interval="1h")


def test_another_version_of_the_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sample, "files", lambda package: tmp_path)
    sample._read.cache_clear()
    try:
        with pytest.raises(IntegrityError, match=r"no file stocks\.csv\.gz"):
            read()
    finally:
        sample._read.cache_clear()


def test_neither_bokeh_nor_pandas_is_imported_to_read_it() -> None:
    assert importlib.resources.files("bokeh_sampledata").is_dir()
    code = (
        "import asyncio, sys\nfrom tidemill.market.sample import SampleSource\nasyncio.run(SampleSource().instruments([]))\n"
        "print(sorted({'bokeh', 'pandas', 'exchange_calendars', 'bokeh_sampledata.stocks'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
