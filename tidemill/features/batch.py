"""Features over whole frames: the scan. Symbols are spread over threads, whose kernels release the interpreter lock.

Threads and not numba's own parallelism: a process that once ran an OpenMP region dies when it forks (PLATFORM).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.features.arrays import Floats, Integers
from tidemill.features.binding import Bound
from tidemill.features.calendar import calendar_column
from tidemill.features.expression import CALENDAR, COLUMNS, INPUTS
from tidemill.features.feature_set import FeatureSet
from tidemill.features.frames import micros, run_bounds
from tidemill.features.kernels.execute import execute
from tidemill.features.opcodes import BLOCK
from tidemill.features.prices import average_price
from tidemill.features.program import Program
from tidemill.features.stages import rows_by_time
from tidemill.features.state import NEVER, FeatureState

# Below it the threads cost more than they save.
_ROWS_WORTH_A_THREAD = 20_000
_TASKS_A_THREAD = 4


@dataclass(frozen=True)
class _Panel:
    """Bars by symbol: rows bounds[s] … bounds[s + 1] - 1 are those of symbols[s], in order of time (epoch microseconds)."""

    frame: pl.DataFrame
    symbols: tuple[str, ...]
    bounds: Integers
    times: Integers


def compute_frame(
    bars: pl.DataFrame, features: FeatureSet, state: FeatureState | None, result: Floats | None = None
) -> tuple[pl.DataFrame, FeatureState]:
    """See `tidemill.features.api.compute`. result: features × rows, where the columns of the frame are to lie."""
    program = features.program
    empty = FeatureState.empty(features.fingerprint, (), program.carried, program.history)
    if state is not None:
        state.require(features.fingerprint, program.carried, program.history)
    panel = _panel(bars)
    if program.stages.across:
        _require_one_dataset(bars)
    current = (state or empty).select(panel.symbols)
    _require_later(panel, current)
    if result is None:
        result = np.empty((len(features.names), len(panel.times)))
    _scan_all(program, panel, current, result)
    if program.stages.across:
        program.stages.compare(result, *rows_by_time(panel.times))
    if len(panel.symbols):
        current.times[:] = panel.times[panel.bounds[1:] - 1]
    columns = [pl.Series(name, row) for name, row in zip(features.names, result, strict=True)]  # the same memory, not a copy
    frame = panel.frame.select("symbol", "open_time").hstack(columns)
    return frame, (state or empty).updated(current)


def require_bars(bars: pl.DataFrame) -> None:
    """Raise InputError unless these have the columns of bars, and a symbol and a time in each row."""
    missing = [name for name in ("symbol", "open_time", *COLUMNS[:-1]) if name not in bars.columns]
    if missing:
        raise InputError(f"The bars have no column {missing[0]!r}. Give symbol, open_time, open, high, low, close and volume.")
    if not isinstance(bars.schema["open_time"], pl.Datetime):
        raise InputError("The column 'open_time' must hold times with a date, as Datetime. Convert it first.")
    if bars["symbol"].null_count() or bars["open_time"].null_count():
        raise InputError("Some bars have no symbol or no open_time. Remove them first.")


def _panel(bars: pl.DataFrame) -> _Panel:
    require_bars(bars)
    panel = _runs(bars)
    if not _ordered(panel):
        panel = _runs(bars.sort("symbol", "open_time"))
        if not _ordered(panel):
            raise InputError("A symbol has two bars with the same open_time. Keep one of them.")
    return panel


def _runs(bars: pl.DataFrame) -> _Panel:
    names = bars["symbol"].cast(pl.String)
    bounds = run_bounds(names)
    return _Panel(bars, tuple(names.gather(bounds[:-1]).to_list()), bounds, micros(bars["open_time"]))


def _ordered(panel: _Panel) -> bool:
    if len(set(panel.symbols)) < len(panel.symbols):
        return False
    later = panel.times[1:] > panel.times[:-1]
    later[panel.bounds[1:-1] - 1] = True
    return bool(later.all())


def _require_later(panel: _Panel, state: FeatureState) -> None:
    if not panel.symbols:
        return
    old = np.flatnonzero((panel.times[panel.bounds[:-1]] <= state.times) & (state.times != NEVER))
    if len(old):
        raise InputError(f"The bars of {panel.symbols[old[0]]!r} begin before the state ends. Pass later bars only.")


def _require_one_dataset(bars: pl.DataFrame) -> None:
    for name in ("dataset", "venue", "interval"):
        if name in bars.columns and bars[name].n_unique() > 1:
            raise InputError(
                f"The bars hold more than one {name}. Cross-sectional features never mix datasets: compute each on its own."
            )


def _column(panel: _Panel, name: str) -> Floats:
    try:
        column = panel.frame[name]
        values = np.ascontiguousarray((column if column.dtype == pl.Float64 else column.cast(pl.Float64)).to_numpy())
    except pl.exceptions.PolarsError as exc:
        raise InputError(f"The column {name!r} does not hold numbers. Convert it first.") from exc
    return values


def _columns(program: Program, panel: _Panel) -> list[Floats]:
    """The columns that the program reads; an empty array for the others."""
    wanted = zip(INPUTS, program.raw, strict=True)
    return [_input(panel, name) if node >= 0 else np.empty(0) for name, node in wanted]


def _input(panel: _Panel, name: str) -> Floats:
    if name == "vwap":
        return _average_price(panel)
    if name in CALENDAR:
        return calendar_column(name, panel.times)
    if name not in panel.frame.columns:  # those of COLUMNS were looked for before
        raise InputError(f"The bars have no column {name!r}. Join it first, as of the time at which each value was known.")
    return _column(panel, name)


def _average_price(panel: _Panel) -> Floats:
    quote_volume = _column(panel, "quote_volume") if "quote_volume" in panel.frame.columns else None
    high, low, close, volume = (_column(panel, name) for name in ("high", "low", "close", "volume"))
    return average_price(high, low, close, volume, quote_volume)


def _scan_all(program: Program, panel: _Panel, state: FeatureState, result: Floats) -> None:
    columns = _columns(program, panel)
    at, size = program.scan_layout()
    mirror, position, clean = np.zeros_like(at), np.zeros(1, dtype=np.int64), np.empty((1, 0), dtype=np.int64)

    def task(first: int, last: int) -> None:
        memory = np.full(size, np.nan)
        for node, value in zip(program.constants, program.values, strict=True):
            memory[at[node] : at[node] + BLOCK] = value
        lists = program.sorted_windows(state.history[first:last])
        bound = Bound(
            program, columns, result, at=at, mirror=mirror, bounds=panel.bounds[first : last + 1], clean=clean,
            position=position, present=np.ones(BLOCK, dtype=np.bool_), memory=memory, lists=lists,
            state=state.slots[first:last], history=state.history[first:last],
        )  # fmt: skip
        execute(False, bound.table)
        program.stages.carry(result, panel.bounds[first : last + 1], panel.times, state.slots[first:last], program.slots)

    rows, symbols = len(panel.times), len(panel.symbols)
    threads = min(_cores(), symbols, 1 + rows // _ROWS_WORTH_A_THREAD)
    if threads <= 1:
        task(0, symbols)
        return
    # Cut where equal shares of the rows end: symbols may differ a hundredfold in length.
    shares = np.arange(1, threads * _TASKS_A_THREAD) * rows // (threads * _TASKS_A_THREAD)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(panel.bounds, shares), [symbols]])).tolist()
    with ThreadPoolExecutor(threads, thread_name_prefix="features") as pool:
        for done in [pool.submit(task, first, last) for first, last in pairwise(cuts)]:
            done.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
