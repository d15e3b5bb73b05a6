"""Looking at what is stored: bars of a symbol, gaps, datasets. polars is imported only by what answers with a frame."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import AmbiguousNameError, InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import valid_symbol
from tidemill.storage.bar_rows import BarRow, datasets, datasets_of, newest_rows, span_of

if TYPE_CHECKING:
    import polars as pl

    from tidemill.study.workspace import Workspace

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


def locate(workspace: Workspace, symbol: str, venue: str | None, interval: Interval | None) -> tuple[str, Interval]:
    """The one dataset that holds `symbol`. AmbiguousNameError names the choices when several do."""
    found = workspace.call(datasets_of, workspace.database, valid_symbol(symbol))
    if not found:
        raise UnknownNameError("symbol", symbol, hint=_what_there_is(workspace))
    fitting = [
        (name, length) for name, length in found if venue in (None, name) and (interval is None or str(interval) == length)
    ]
    if not fitting:
        wanted = " ".join(str(part) for part in (venue, interval) if part is not None)
        raise UnknownNameError(f"dataset of {symbol}", wanted, (f"{name} {length}" for name, length in found))
    if len(fitting) > 1:
        raise AmbiguousNameError("symbol", symbol, (f"{name} {length}" for name, length in fitting), "--venue and --interval")
    return fitting[0][0], Interval.parse(fitting[0][1])


def _what_there_is(workspace: Workspace) -> str:
    known = [f"{name} {length}" for name, length in workspace.call(datasets, workspace.database)]
    if known:
        return f"There are bars of these datasets: {', '.join(known)}."
    return "There are no bars yet: run `tidemill data import` or `tidemill run`."


def bar_rows_of(workspace: Workspace, wanted: BarSelection) -> tuple[str, Interval, list[BarRow]]:
    """Venue, interval and the raw bars of one symbol from Postgres, ascending. InputError when none are in the range."""
    venue, interval = locate(workspace, wanted.symbol, wanted.venue, wanted.interval)
    if wanted.limit is None or wanted.limit > _FEW:
        rows = [BarRow(*row) for row in _frame(workspace, venue, interval, wanted).iter_rows()]
    else:
        rows = workspace.call(
            newest_rows,
            workspace.database,
            venue,
            interval,
            wanted.symbol,
            limit=wanted.limit,
            start=wanted.start,
            end=wanted.end,
            as_of=wanted.as_of,
        )
    if not rows:
        raise _none_there(workspace, venue, interval, wanted)
    return venue, interval, rows


def bars_of(workspace: Workspace, wanted: BarSelection) -> pl.DataFrame:
    """What `bar_rows_of` answers, as a frame of BAR_COLUMNS."""
    venue, interval = locate(workspace, wanted.symbol, wanted.venue, wanted.interval)
    frame = _frame(workspace, venue, interval, wanted)
    if frame.is_empty():
        raise _none_there(workspace, venue, interval, wanted)
    return frame


def _frame(workspace: Workspace, venue: str, interval: Interval, wanted: BarSelection) -> pl.DataFrame:
    return workspace.call(
        workspace.store.read,
        venue,
        interval,
        symbols=(wanted.symbol,),
        start=wanted.start,
        end=wanted.end,
        as_of=wanted.as_of,
        limit=wanted.limit,
    )


def _none_there(workspace: Workspace, venue: str, interval: Interval, wanted: BarSelection) -> InputError:
    first, last = workspace.call(span_of, workspace.database, venue, interval, wanted.symbol)
    known = "" if wanted.as_of is None else f", as known on {wanted.as_of:%Y-%m-%d %H:%M}"
    form = "%Y-%m-%d" if interval.seconds % 86_400 == 0 else "%Y-%m-%d %H:%M"
    return InputError(
        f"There is no {interval} bar of {wanted.symbol} at {venue} in that range{known}. "
        f"It has bars from {first.strftime(form)} to {last.strftime(form)}."
    )


def gaps_of(workspace: Workspace, *, venue: str | None = None, interval: Interval | None = None) -> pl.DataFrame:
    """Gaps of all or some datasets, newest first: venue, interval, symbol, start, end, missing.

    UnknownNameError when there is no such dataset, InputError when there is none at all.
    """
    import polars as pl

    known = workspace.call(datasets, workspace.database)
    if not known:
        raise InputError("There are no bars yet. Run `tidemill data import` or `tidemill run` first.")
    chosen = [
        (name, length) for name, length in known if venue in (None, name) and (interval is None or str(interval) == length)
    ]
    if not chosen:
        wanted = " ".join(str(part) for part in (venue, interval) if part is not None)
        raise UnknownNameError("dataset", wanted, (f"{name} {length}" for name, length in known))
    frames = [
        workspace.call(workspace.store.read_gaps, name, Interval.parse(length)).select(
            pl.lit(name).alias("venue"), pl.lit(length).alias("interval"), "symbol", "start", "end", "missing"
        )
        for name, length in chosen
    ]
    return pl.concat(frames).sort("start", "symbol", descending=[True, False])


def lake_bars(workspace: Workspace, venue: str, interval: Interval, symbols: Sequence[str] = ()) -> pl.DataFrame:
    """Bars of a dataset from the lake, sorted by symbol and time. UnknownNameError for what is not there."""
    import polars as pl

    key = f"{venue}.{interval}"
    known = workspace.lake.datasets("bars")
    if key not in known:
        raise UnknownNameError("dataset", key, known, hint="" if known else "Run `tidemill data import` first.")
    scan = workspace.lake.scan("bars", key)
    if symbols:
        scan = scan.filter(pl.col("symbol").is_in(list(symbols)))
    frame = scan.sort("symbol", "open_time").collect()
    missing = sorted(set(symbols) - set(frame["symbol"].unique()))
    if missing:
        raise UnknownNameError(f"symbol in {key}", missing[0])
    return frame
