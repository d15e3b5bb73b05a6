"""From a source to bars that can be trusted: validated, stored in Postgres and lake, with gaps and adjustments found."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from tidemill.calendars import Followed, by_calendar
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS, Instrument
from tidemill.domain.months import month_end, month_start
from tidemill.domain.naming import first_of
from tidemill.domain.ports import BarSource
from tidemill.market.adjustments import ADJUSTMENT_SCHEMA, derive_adjustments
from tidemill.market.calendars import infer_calendars
from tidemill.market.gaps import find_gaps
from tidemill.quality.bars import Validated, validate_bars
from tidemill.steps.market_data.flags import JudgedBars, write_flags
from tidemill.storage.endings import Mirrored
from tidemill.storage.lake import Lake
from tidemill.storage.losses import Loss, forget_restored, note_loss
from tidemill.study.losses import loss_sentence
from tidemill.study.restatements import RESTATED, restated_in
from tidemill.study.tables import BARS, IMPORTS
from tidemill.study.workspace import Workspace

# Rows that are judged together. A larger import goes through files in batches of this size, so that memory stays bounded.
BATCH_ROWS = 4_000_000
_KEYS = ("symbol", "open_time")
_NO_SETTLED = pl.DataFrame(schema={"symbol": pl.String(), "settled": pl.Datetime("us", "UTC")})
_NO_KEYS = pl.DataFrame(schema={"symbol": pl.String(), "open_time": pl.Datetime("us", "UTC")})


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an import did: rows = inserted + unchanged + restated + duplicates (equal rows, dropped) + quarantined.

    ended: bars of the dataset that its source does not have any more. loss: what to do where they are more than a tenth.
    """

    venue: str
    interval: str
    calendar: str
    rows: int
    inserted: int
    unchanged: int
    restated: int
    duplicates: int
    quarantined: int
    reasons: dict[str, int]
    flags: dict[str, int]
    gaps: int
    missing_bars: int
    adjustments: int
    symbols: int
    start: datetime | None
    end: datetime | None
    changed_months: tuple[str, ...]
    ended: int = 0
    loss: str = ""
    notes: tuple[str, ...] = ()


def _ending_note(gone: pl.DataFrame) -> str:
    """What left the source. gone: symbol, open_time."""
    symbols, times = gone["symbol"].unique().sort().to_list(), gone["open_time"].dt.strftime("%Y-%m-%d").sort()
    return (
        f"{gone.height:,} bar{'s' * (gone.height != 1)} left the source ({first_of(symbols)}, {times[0]} to {times[-1]}): in "
        f"no result from {datetime.now(UTC):%Y-%m-%d} on; `tidemill data show --as-of` shows what was known before."
    )


class _Spool:
    """Good bars of one import: in memory while they fit, then in files of a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: pl.DataFrame | None = None
        self._files = 0

    def add(self, frame: pl.DataFrame) -> None:
        if self._held is not None:
            self._held.write_parquet(self._folder / f"{self._files:06d}.parquet", compression="lz4")
            self._files += 1
        self._held = frame

    def month(self, month: str) -> pl.DataFrame | None:
        """The good bars of a month, in the order of the import; None when there was no good bar at all."""
        inside = pl.col("open_time").is_between(month_start(month), month_end(month), closed="left")
        parts = []
        if self._files:
            parts.append(pl.scan_parquet(self._folder / "*.parquet").filter(inside).collect())
        if self._held is not None:
            parts.append(self._held.filter(inside))
        return pl.concat(parts) if parts else None

    def sizes(self) -> dict[str, int]:
        """Month → number of good bars, each counted once."""
        parts = [pl.scan_parquet(self._folder / "*.parquet").select(_KEYS)] if self._files else []
        keys = [*parts, self._held.lazy().select(_KEYS)] if self._held is not None else parts
        if not keys:
            return {}
        distinct = pl.concat(keys).unique() if self._files else keys[0]  # one batch holds no bar twice
        months = distinct.group_by(pl.col("open_time").dt.truncate("1mo")).len().collect()
        return {f"{month:%Y-%m}": size for month, size in months.iter_rows()}


def _pull(workspace: Workspace, chunks: AsyncIterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The chunks of an asynchronous source, one at a time, so that memory holds one."""

    async def following() -> pl.DataFrame | None:
        return await anext(chunks, None)

    while (chunk := workspace.call(following)) is not None:
        yield chunk


def _batches(chunks: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Chunks put together up to a bound, since duplicates and spikes are seen only among rows that stand together."""
    held: list[pl.DataFrame] = []
    rows = 0
    for chunk in chunks:
        if held and rows + chunk.height > BATCH_ROWS:
            yield pl.concat(held, how="diagonal_relaxed")
            held, rows = [], 0
        held.append(chunk)
        rows += chunk.height
    if held:
        yield pl.concat(held, how="diagonal_relaxed")


def _symbols_by_rows(bars: pl.LazyFrame) -> Iterator[list[str]]:
    """All symbols of `bars` in groups that a batch's memory holds; a symbol with more bars than that is a group of its own."""
    held: list[str] = []
    rows = 0
    for symbol, size in bars.group_by("symbol").len().sort("symbol").collect(engine="streaming").iter_rows():
        if held and rows + size > BATCH_ROWS:
            yield held
            held, rows = [], 0
        held.append(symbol)
        rows += size
    yield held


def stale_months(workspace: Workspace, venue: str, interval: Interval) -> dict[str, tuple[int, int]]:
    """Month → version and rows in Postgres, of the months that the lake lacks or holds in another version."""
    held = workspace.lake.manifests(BARS, f"{venue}.{interval}")
    sizes = workspace.call(workspace.store.month_sizes, venue, interval)
    known = {month: manifest.metadata.get("version") for month, manifest in held.items()}
    stale = {month: size for month, size in sizes.items() if known.get(month) != size[0]}
    return {month: size for month, size in stale.items() if size[1] or month in held}


def copy_months(
    workspace: Workspace,
    venue: str,
    interval: Interval,
    own: Callable[[str, int], pl.DataFrame | None] = lambda month, rows: None,
) -> int:
    """Bring the lake's months up to date with Postgres; how many were. own: a month's newest bars where somebody has them."""
    old = stale_months(workspace, venue, interval)
    for month, (version, rows) in old.items():
        if not rows:  # all its bars have left their source
            workspace.lake.drop(BARS, f"{venue}.{interval}", month)
            continue
        bars = own(month, rows)
        if bars is None:
            start, end = month_start(month), month_end(month)
            bars = workspace.call(workspace.store.read, venue, interval, start=start, end=end)
        facts = {"version": version, RESTATED: restated_in(bars, interval)}
        workspace.lake.write(BARS, f"{venue}.{interval}", month, bars, metadata=facts)
    _note_restatements(workspace.lake, f"{venue}.{interval}", interval)
    return len(old)


def _note_restatements(lake: Lake, key: str, interval: Interval) -> None:
    """Months written before restatements were noted get the note once."""
    for manifest in lake.manifests(BARS, key).values():
        if RESTATED not in manifest.metadata:
            found = restated_in(lake.scan_partition(manifest).collect(), interval)
            lake.annotate(manifest, {**manifest.metadata, RESTATED: found})


class _Import:
    """The state of one import while its batches come in."""

    def __init__(
        self,
        workspace: Workspace,
        source: BarSource,
        interval: Interval,
        calendars: dict[str, str],
        spool: _Spool,
        part: Mirrored,
    ) -> None:
        self.part, self.mirrors = part, bool(getattr(source, "mirrors", False))
        self.workspace, self.source, self.interval, self.calendars, self.spool = workspace, source, interval, calendars, spool
        self.key = f"{source.venue}.{interval}"
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.months: set[str] = set()
        self.symbols: set[str] = set()
        self.adjusted: list[pl.DataFrame] = []
        self.settled: pl.DataFrame | None = None
        self.flags: list[pl.DataFrame] = []
        self.times: list[datetime] = []
        self.refused: list[pl.DataFrame] = []
        self.told: list[str] = []

    def take(self, raw: pl.DataFrame) -> None:
        """Judge one batch, store its good rows and put its bad ones into the quarantine."""
        self.calendars = self.calendars or infer_calendars(raw, self.interval)
        checked = validate_bars(
            raw,
            interval=self.interval,
            calendar=_followed(self.calendars),
            now=datetime.now(UTC),
            source=getattr(self.source, "origin", self.source.venue),
            venue=self.source.venue,
        )
        self.counts.update(rows=raw.height, duplicates=checked.duplicates, quarantined=checked.quarantine.height)
        self.reasons.update(checked.reasons())
        self.flags.append(checked.flags)
        if checked.quarantine.height:
            self.workspace.call(self.workspace.store.write_quarantine, checked.quarantine)
            self.refused.append(checked.quarantine.select(_KEYS).drop_nulls().unique())
        if checked.adjusted is not None:
            self.adjusted.append(checked.adjusted)
            self.settled = self.settled if self.settled is not None else self._settled()
        if checked.good.height:
            self._store(checked)

    def _store(self, checked: Validated) -> None:
        good = checked.good.select(BAR_COLUMNS)
        written = self.workspace.call(self.workspace.store.write, self.source.venue, self.interval, good)
        self.counts.update(inserted=written.inserted, unchanged=written.unchanged, restated=written.restated)
        self.months.update(written.changed_months)
        self.spool.add(good)
        self.symbols.update(good["symbol"].unique().to_list())
        self.times += [time for time in (good["open_time"].min(), good["open_time"].max()) if isinstance(time, datetime)]

    def write_lake(self) -> None:
        """Bring the lake up to date. An import that was interrupted before is finished here, whatever this one changed."""
        copy_months(self.workspace, self.source.venue, self.interval, self._own)

    def _own(self, month: str, rows: int) -> pl.DataFrame | None:
        """The newest version of every bar of a month where this import holds them all."""
        own = self.spool.month(month)
        # A restated bar is known since its receipt, which only the store knows: this import has to be the first of all.
        if own is None or self.counts["restated"] or self.counts["unchanged"]:
            return None
        own = own.unique(("symbol", "open_time"), keep="last", maintain_order=True)
        return own.sort("symbol", "open_time") if own.height == rows else None

    def end_missing(self) -> None:
        """Where the source is the whole of its dataset, end what it does not have any more and say so."""
        if not self.mirrors:
            return
        held, missing, given = 0, [_NO_KEYS], self.spool.sizes()
        for manifest in self.workspace.lake.manifests(BARS, self.key).values():
            if given.get(manifest.partition) == manifest.rows:  # all that was given is stored: so nothing else is
                held += manifest.rows
                continue
            stored = self._selected(self.workspace.lake.scan_partition(manifest).select(_KEYS)).collect()
            missing.append(stored.join(self._present(manifest.partition), on=_KEYS, how="anti"))
            held += stored.height
        gone = pl.concat(missing)
        self._note_loss(Loss(lost=gone.height, held=held, found_at=datetime.now(UTC)))
        if not gone.is_empty():
            self._end(gone)

    def _note_loss(self, loss: Loss) -> None:
        """Before the first bar ends, so that a kill in between does not hide it."""
        call, of = self.workspace.call, (self.workspace.database, self.source.venue, self.interval)
        if loss.great:
            call(note_loss, *of, loss)
        else:
            call(forget_restored, *of)

    def _end(self, gone: pl.DataFrame) -> None:
        self.counts["ended"] = self.workspace.call(self.workspace.store.end, self.source.venue, self.interval, gone)
        self.months.update(gone["open_time"].dt.strftime("%Y-%m").unique())
        self.write_lake()
        self.told.append(_ending_note(gone))

    def _present(self, month: str) -> pl.DataFrame:
        """Bars of which the source has a row, good or bad: of a bad one the last good version stays."""
        good = self.spool.month(month)
        rows = [frame.select(_KEYS) for frame in (good, *self.refused) if frame is not None]
        return pl.concat([_NO_KEYS, *rows]).unique()

    def _selected(self, scan: pl.LazyFrame) -> pl.LazyFrame:
        if self.part.symbols:
            scan = scan.filter(pl.col("symbol").is_in(list(self.part.symbols)))
        if self.part.start is not None:
            scan = scan.filter(pl.col("open_time") >= self.part.start)
        return scan if self.part.end is None else scan.filter(pl.col("open_time") < self.part.end)

    def finish(self) -> ImportReport:
        """Gaps, flags and corporate actions of the whole, and what to tell."""
        gaps = self._write_gaps()
        actions = self._write_actions()
        flags = self._write_flags()
        return ImportReport(
            venue=self.source.venue,
            interval=str(self.interval),
            calendar=", ".join(sorted(by_calendar(self.symbols, _followed(self.calendars)))),
            rows=self.counts["rows"],
            inserted=self.counts["inserted"],
            unchanged=self.counts["unchanged"],
            restated=self.counts["restated"],
            duplicates=self.counts["duplicates"],
            quarantined=self.counts["quarantined"],
            reasons=dict(self.reasons),
            flags=flags,
            gaps=gaps.height,
            missing_bars=int(gaps["missing"].sum()) if gaps.height else 0,
            adjustments=actions,
            symbols=len(self.symbols),
            start=min(self.times, default=None),
            end=max(self.times, default=None),
            changed_months=tuple(sorted(self.months)),
            ended=self.counts["ended"],
            loss=loss_sentence(self.workspace, self.source.venue, self.interval),
            notes=(*self.told, *getattr(self.source, "notes", ())),
        )

    def _write_gaps(self) -> pl.DataFrame:
        if not self.times:
            return pl.DataFrame()
        known = _followed(_calendars(self.workspace.call(self.workspace.store.read_instruments, self.source.venue)))
        times = self.workspace.lake.scan(BARS, self.key).select("symbol", "open_time")
        parts = [
            find_gaps(times.filter(pl.col("symbol").is_in(symbols)).collect(), self.interval, known)
            for symbols in _symbols_by_rows(times)
        ]
        gaps = pl.concat(parts)
        self.workspace.call(self.workspace.store.write_gaps, self.source.venue, self.interval, gaps)
        return gaps

    def _write_actions(self) -> int:
        if not self.adjusted and not self._had_actions():
            return 0
        # From the whole series at once: an action shows only between two bars that stand together. A file that tells none any
        # more has none.
        told = pl.concat(self.adjusted).sort("symbol", "open_time") if self.adjusted else None
        actions = derive_adjustments(told) if told is not None else pl.DataFrame(schema=ADJUSTMENT_SCHEMA)
        whole = self.part if self.mirrors else None
        settled = _NO_SETTLED if self.settled is None else self.settled
        late = (pl.col("ex_time") <= pl.col("settled")).fill_null(value=False)
        rows = actions.join(settled, on="symbol", how="left", maintain_order="left").with_columns(late=late).drop("settled")
        self.workspace.call(self.workspace.store.write_adjustments, self.source.venue, rows, mirrored=whole)
        return actions.height

    def _had_actions(self) -> bool:
        """Whether a file that tells no action did so before."""
        read = self.workspace.store.read_adjustments
        return self.mirrors and not self.workspace.call(read, self.source.venue, self.part.symbols).is_empty()

    def _settled(self) -> pl.DataFrame:
        """symbol, settled: the newest bar that it had before this import, where one was finished before. What is told of
        actions up to there was not known with those bars.
        """
        lake = self.workspace.lake
        if not lake.manifests(IMPORTS, self.key) or not lake.manifests(BARS, self.key):
            return _NO_SETTLED
        return lake.scan(BARS, self.key).group_by("symbol").agg(settled=pl.col("open_time").max()).collect()

    def _write_flags(self) -> dict[str, int]:
        given = JudgedBars(
            symbols=frozenset(self.symbols),
            refused=self.flags,
            tells_actions=bool(self.adjusted),
            whole=self.mirrors,
            everything=self.mirrors and self.part == Mirrored(),
        )
        stored = self.workspace.lake.scan(BARS, self.key).filter(pl.col("symbol").is_in(self.symbols))
        groups = _symbols_by_rows(stored) if self.symbols else []
        return write_flags(self.workspace, self.source.venue, self.interval, groups, given)


def _calendars(instruments: Sequence[Instrument]) -> dict[str, str]:
    return {instrument.symbol: instrument.calendar for instrument in instruments}


def _followed(calendars: dict[str, str]) -> Followed:
    """One name where all have the same: nothing has to be told apart then, bad symbols included."""
    names = set(calendars.values())
    return names.pop() if len(names) == 1 else calendars


def _settled(instruments: Sequence[Instrument], stored: Sequence[Instrument]) -> list[Instrument]:
    """The instruments of a source; what is only inferred gives way to what was named before, or comes from an earlier home."""
    named = {instrument.symbol: instrument for instrument in stored if not instrument.calendar_inferred}
    return [named.get(one.symbol, one) if one.calendar_inferred else one for one in instruments]


def import_bars(
    workspace: Workspace,
    source: BarSource,
    *,
    interval: Interval,
    symbols: Sequence[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
) -> ImportReport:
    """Fetch bars from `source` and store what is new; the same content again changes nothing.

    Bars are judged by the calendars of their instruments. Raises InputError when the source gives no row at all. An import that
    is interrupted leaves whole batches behind; the next one finishes it.
    """
    if end is not None and start is not None and end <= start:
        raise InputError(f"The end {end:%Y-%m-%d} is not after the start {start:%Y-%m-%d}. Swap them.")
    if start is not None and start > datetime.now(UTC) + timedelta(days=1):
        raise InputError(f"The start {start:%Y-%m-%d} is in the future, where there are no bars yet. Give an earlier date.")
    try:
        stored = workspace.call(workspace.store.read_instruments, source.venue)
        instruments = _settled(workspace.call(source.instruments, symbols), stored)
        with tempfile.TemporaryDirectory(prefix="tidemill-import-") as folder:
            part = Mirrored(symbols=tuple(symbols), start=start, end=end)
            state = _Import(workspace, source, interval, _calendars(instruments), _Spool(Path(folder)), part)
            for raw in _batches(_pull(workspace, source.bars(symbols, interval, start, end))):
                state.take(raw)
            if not state.counts["rows"] and start is None and end is None:
                raise InputError(f"{source.venue} returned no {interval} bars. Check the symbols and the interval.")
            state.write_lake()
            state.end_missing()
        held = [instrument for instrument in instruments if instrument.symbol in state.symbols]
        workspace.call(workspace.store.write_instruments, held)
        return state.finish()
    finally:
        workspace.call(source.close)
