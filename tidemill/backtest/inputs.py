"""What the scan takes, made from frames and instruments: the market's panel and the corporate actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tidemill.backtest.panel import Axes, Panel, microseconds, require_columns
from tidemill.backtest.scan import Market
from tidemill.backtest.sessions import contiguous_slots
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval, epoch_microseconds
from tidemill.domain.market import AdjustmentKind, Instrument
from tidemill.matching.rules import Floats
from tidemill.trading.account import Indices
from tidemill.trading.slot import DIVIDEND_ACTION, SPLIT_ACTION, SUSPECTED_ACTION, Actions

if TYPE_CHECKING:
    import polars as pl


def market_of(panel: Panel, targets: Floats, interval: Interval, instruments: Mapping[str, Instrument]) -> Market:
    times = panel.axes.times
    elapsed = np.diff(times, prepend=times[0]) / 1e6
    contiguous = contiguous_slots(panel, interval, instruments)
    delisted = _delisted(panel.axes, instruments)
    return Market(panel.open, panel.close, panel.volume, targets, elapsed, contiguous, delisted)


def _delisted(axes: Axes, instruments: Mapping[str, Instrument]) -> Indices:
    """Slot from which each symbol is known to be gone; past the end where it is not."""
    slots = np.full(len(axes.symbols), len(axes.times), dtype=np.int64)
    for at, symbol in enumerate(axes.symbols):
        gone = instruments[symbol].delisted_at if symbol in instruments else None
        if gone is not None:
            slots[at] = np.searchsorted(axes.times, epoch_microseconds(gone))
    return slots


Action = tuple[int, int, int, float]  # slot, symbol, kind, value


def known_actions(adjustments: pl.DataFrame | None, axes: Axes) -> list[Action]:
    """Splits and dividends on the axes; symbols without bars and actions after the last bar do not matter."""
    if adjustments is None or adjustments.is_empty():
        return []
    require_columns(adjustments, ("symbol", "kind", "ex_time", "value"), "adjustments")
    kinds = {AdjustmentKind.SPLIT.value: SPLIT_ACTION, AdjustmentKind.DIVIDEND.value: DIVIDEND_ACTION}
    slots = np.searchsorted(axes.times, microseconds(adjustments.get_column("ex_time"), "the adjustments"))
    position = {symbol: at for at, symbol in enumerate(axes.symbols)}
    made = []
    for slot, (symbol, kind, value) in zip(
        slots.tolist(), adjustments.select("symbol", "kind", "value").iter_rows(), strict=True
    ):
        if kind not in kinds:
            raise InputError(f"{kind!r} is not a corporate action. Use split or dividend.")
        if value is None or not 0.0 < value < float("inf"):
            raise InputError(f"The {kind} of {symbol} has the value {value}; it must be above 0.")
        if symbol in position and slot < len(axes.times):
            made.append((slot, position[symbol], kinds[kind], float(value)))
    return made


def suspected_actions(suspected: pl.DataFrame | None, axes: Axes) -> list[Action]:
    if suspected is None or suspected.is_empty():
        return []
    require_columns(suspected, ("symbol", "open_time"), "suspected actions")
    times = microseconds(suspected.get_column("open_time"), "the suspected actions")
    slots = np.searchsorted(axes.times, times)
    position = {symbol: at for at, symbol in enumerate(axes.symbols)}
    pairs = zip(slots.tolist(), times.tolist(), suspected.get_column("symbol").to_list(), strict=True)
    return [
        (slot, position[symbol], SUSPECTED_ACTION, 1.0)
        for slot, time, symbol in pairs
        if symbol in position and slot < len(axes.times) and axes.times[slot] == time
    ]


def sorted_actions(actions: list[Action]) -> Actions:
    ordered = sorted(set(actions))
    columns = list(zip(*ordered, strict=True)) if ordered else [(), (), (), ()]
    slot, symbol, kind = (np.array(column, dtype=np.int64) for column in columns[:3])
    return Actions(slot, symbol, kind, np.array(columns[3], dtype=np.float64))
