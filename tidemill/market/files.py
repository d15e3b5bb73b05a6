"""Bars from files: one CSV or Parquet file, or a folder of them, streamed so that memory does not grow with the file."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path

import polars as pl

from tidemill.calendars import ALWAYS, Followed, calendar_named
from tidemill.config import Settings
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument, slug, valid_symbol
from tidemill.market.calendars import FirstBars
from tidemill.market.raw_bars import match_columns, open_times, raw_bars, slashed_patterns
from tidemill.market.tables import is_table, stem, table_chunks, table_columns

_SAMPLE_ROWS = 5_000
# Rows of a file of one symbol that tell its calendar: three weeks of minutes.
_ROWS_OF_ONE = 30_000
# A grid is believed when half of at least so many steps agree; fewer rows fit any interval.
_MIN_STEPS = 8
STOCK_BORROW_BPS = 50.0


class FileSource:
    """A `BarSource` over a file or folder.

    venue: name to keep the bars under; of a dataset that is named the source is a part, else it is the whole (`mirrors`).
    only: of the files that are there, those to read. calendar: a name for all symbols, or what is known of each already; what
    is not known is inferred (`market.calendars`). Files whose bars lie on another grid than the interval asked for are left
    out; `notes` says which. Raises InputError for a path without tables, and for an interval that none of the files has, naming
    those that they have.
    """

    def __init__(
        self,
        path: Path | str,
        settings: Settings | None = None,
        *,
        venue: str | None = None,
        only: Collection[Path] = (),
        calendar: Followed | None = None,
    ) -> None:
        del settings  # every source is made the same way; files need none
        self._path = Path(path).expanduser()
        self._files = [file for file in _tables_at(self._path) if not only or file in only]
        self._venue = slug(venue or (self._path.resolve().name if self._path.is_dir() else stem(self._path)))
        self.mirrors = venue is None and not only
        self._grids: dict[Path, Interval | None] = {}
        self._followed = calendar
        self._first = FirstBars()
        self._symbols: tuple[str, ...] | None = None
        self.notes: list[str] = []

    @property
    def venue(self) -> str:
        """Slug of the folder's or file's name, or of the name given."""
        return self._venue

    @property
    def path(self) -> Path:
        """The file or folder, wherever links lead: two of one name in different folders are different sources."""
        return self._path.resolve()

    @property
    def all_files(self) -> list[Path]:
        """Every file that is looked at, with links resolved."""
        return [file.resolve() for file in self._files]

    def kept_under(self, venue: str) -> "FileSource":
        """This source, its bars under another name. Unlike a `venue` that is given, the dataset is still its own alone."""
        self._venue = slug(venue)
        return self

    def files(self, interval: Interval) -> list[Path]:
        """The files that hold bars of `interval`, or too few to tell."""
        return self._chosen(interval)

    def adjusts(self) -> bool:
        """Whether any file has an adjusted close, from which corporate actions are derived."""
        return any("adjusted_close" in match_columns(table_columns(file), file) for file in self._files)

    @property
    def origin(self) -> str:
        """What the quarantine names as the source of a row."""
        return self._path.name

    def span(self, interval: Interval) -> tuple[datetime, datetime] | None:
        """First and last readable open time of the files with bars of `interval`; None when there is none."""
        times: list[datetime] = []
        for file in self._chosen(interval):
            given = match_columns(table_columns(file), file)["open_time"]
            slashed = _slashed(file, given)
            for chunk in table_chunks(file, [given]):
                read = open_times(chunk[given], interval, slashed)
                times += [time for time in (read.min(), read.max()) if isinstance(time, datetime)]
        return (min(times), max(times)) if times else None

    async def instruments(self, symbols: Sequence[str]) -> list[Instrument]:
        """Instruments of `symbols`, of all when empty.

        What follows the calendar of a stock exchange is taken for a stock that can be borrowed at 50 bps a year, everything
        else for spot, which is long only.
        """
        known = await asyncio.to_thread(self._known_symbols)
        self._refuse_unknown(symbols, known)
        chosen = symbols or [name for name in known if _usable(name)]
        calendars = await asyncio.to_thread(self._calendars, chosen)
        inferred = not isinstance(self._followed, str)
        return [file_instrument(self._venue, name, calendars[name], inferred=inferred) for name in chosen]

    async def bars(
        self, symbols: Sequence[str], interval: Interval, start: datetime | None, end: datetime | None
    ) -> AsyncIterator[pl.DataFrame]:
        """Raw bars with start ≤ open_time < end; rows whose time cannot be read come too, so that they are counted."""
        if symbols:
            self._refuse_unknown(symbols, await asyncio.to_thread(self._known_symbols))
        files = await asyncio.to_thread(self._chosen, interval)
        stream = self._stream(files, symbols, interval, start, end)
        while (frame := await asyncio.to_thread(next, stream, None)) is not None:
            yield frame

    async def close(self) -> None:
        """Nothing is held open between calls."""

    def _stream(
        self, files: list[Path], symbols: Sequence[str], interval: Interval, start: datetime | None, end: datetime | None
    ) -> Iterator[pl.DataFrame]:
        wanted, time = pl.lit(True), pl.col("open_time")
        if symbols:
            wanted = wanted & pl.col("symbol").is_in(list(symbols))
        if start is not None:
            wanted = wanted & (time.is_null() | (time >= start))
        if end is not None:
            wanted = wanted & (time.is_null() | (time < end))
        for file in files:
            for frame in _raw_chunks(file, interval):
                kept = frame.filter(wanted) if symbols or start or end else frame
                if kept.height:
                    yield kept

    def _chosen(self, interval: Interval) -> list[Path]:
        chosen = [file for file in self._files if self._grid_of(file) in (interval, None)]
        others = sorted({str(grid): grid for grid in self._grids.values() if grid is not None}.values())
        if not chosen:
            found = ", ".join(str(grid) for grid in others)
            raise InputError(f"{self._path} holds no {interval} bars, only {found}. Ask for one of these intervals.")
        left_out = [f"{file.name} ({self._grids[file]})" for file in self._files if file not in chosen]
        self.notes = [f"Left out, since they do not hold {interval} bars: {', '.join(left_out)}."] if left_out else []
        return chosen

    def _known_symbols(self) -> tuple[str, ...]:
        """All symbols, read once; on the way the first bars of each are kept, where its calendar has to be told by them."""
        if self._symbols is None:
            names: set[str] = set()
            first = None if isinstance(self._followed, str) else self._first
            for file in self._files:
                names |= _symbols_in(file, self._grid, first if self._grid_of(file) in (self._grid, None) else None)
            self._symbols = tuple(sorted(names))
        return self._symbols

    def _refuse_unknown(self, symbols: Sequence[str], known: tuple[str, ...]) -> None:
        there = set(known)
        for symbol in symbols:
            if symbol not in there:
                raise UnknownNameError("symbol", symbol, known, hint=f"They are those of {self._path}.")

    def _calendars(self, symbols: Sequence[str]) -> dict[str, str]:
        """Symbol → calendar. Of what nothing is known, and no bar tells, it is the commonest in this source."""
        if isinstance(self._followed, str):
            return dict.fromkeys(symbols, self._followed)
        known = dict(self._followed or {})
        told = known if known.keys() >= set(symbols) else self._first.calendars(self._grid, _commonest(known)) | known
        common = _commonest(known) or _commonest(told) or ALWAYS
        return {name: told.get(name, common) for name in symbols}

    @cached_property
    def _grid(self) -> Interval:
        """The interval of the first file that has one: its bars, and those of its like, tell calendars."""
        return next(filter(None, map(self._grid_of, self._files)), Interval.parse("1d"))

    def _grid_of(self, file: Path) -> Interval | None:
        if file not in self._grids:
            self._grids[file] = _grid(file)
        return self._grids[file]


def file_instrument(venue: str, symbol: str, calendar: str, *, inferred: bool, can_short: bool | None = None) -> Instrument:
    """What a symbol of a file may do. can_short: None asks its calendar: a stock can be borrowed, spot cannot."""
    short = calendar_named(calendar).stocks if can_short is None else can_short
    return Instrument(
        venue=venue,
        symbol=symbol,
        calendar=calendar,
        calendar_inferred=inferred,
        can_short=short,
        borrow_bps=STOCK_BORROW_BPS if short else 0.0,
    )


def _tables_at(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"There is no file or folder {path}. Correct the path.")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if is_table(file) and file.is_file() and not file.name.startswith("."))
        if not files:
            raise InputError(f"The folder {path} holds no .csv, .csv.gz or .parquet file. Give another folder.")
        return files
    if not is_table(path):
        raise InputError(f"{path} is not a .csv, .csv.gz, .parquet or .pq file. Convert it to one of these.")
    return [path]


def _usable(symbol: str) -> bool:
    try:
        valid_symbol(symbol)
    except InputError:
        return False
    return True


def _raw_chunks(
    file: Path, interval: Interval | None, rows: int | None = None, columns: Collection[str] = ()
) -> Iterator[pl.DataFrame]:
    matched = match_columns(table_columns(file), file)
    if columns:
        matched = {name: given for name, given in matched.items() if name in columns}
    symbol = stem(file)
    if "symbol" not in matched and not _usable(symbol):
        raise InputError(
            f"{file} has no symbol column and its name {symbol[:40]!r} is not a symbol. Add the column or rename the file."
        )
    slashed = _slashed(file, matched["open_time"]) if "open_time" in matched else ()
    for chunk in table_chunks(file, list(matched.values()), rows=rows):
        yield raw_bars(chunk, matched, symbol=symbol, interval=interval, slashed=slashed)


def _slashed(file: Path, column: str) -> tuple[str, ...]:
    """Decided once for a whole file: a chunk alone may hold no day above the 12th."""
    head = pl.concat(list(table_chunks(file, [column], rows=_SAMPLE_ROWS)))[column]
    return slashed_patterns(head) if head.dtype == pl.String else ()


def _sample(file: Path, interval: Interval | None) -> pl.DataFrame:
    return pl.concat(_raw_chunks(file, interval, rows=_SAMPLE_ROWS))


def _grid(file: Path) -> Interval | None:
    """The spacing of most neighbouring bars in the first rows; None where too few rows agree on one."""
    step = pl.col("open_time").diff().over("symbol").dt.total_microseconds()
    head = _sample(file, None).drop_nulls("open_time").sort("symbol", "open_time")
    steps = head.select(step.alias("step")).filter(pl.col("step") > 0)["step"]
    if steps.len() < _MIN_STEPS:
        return None
    (common, count), *_ = Counter(steps.to_list()).most_common(1)
    return Interval(common // 1_000_000) if 2 * count >= steps.len() and common % 1_000_000 == 0 else None


def _symbols_in(file: Path, grid: Interval, first: FirstBars | None) -> set[str]:
    """Symbols of a file. first: takes their first bars."""
    matched = match_columns(table_columns(file), file)
    if "symbol" not in matched and (first is None or not _usable(stem(file))):
        return {stem(file)}
    wanted = ("symbol",) if first is None else ("symbol", "open_time")
    rows = None if "symbol" in matched else _ROWS_OF_ONE
    names: set[str] = set()
    for chunk in _raw_chunks(file, grid, rows=rows, columns=wanted):
        names.update(chunk["symbol"].drop_nulls().unique().to_list())
        if first is not None:
            first.add(chunk.select(wanted))
    return names


def _commonest(known: Mapping[str, str]) -> str | None:
    return next((name for name, _ in Counter(known.values()).most_common(1)), None)
