"""Which slots of a panel belong to which symbols, where not all follow one calendar; compiled code reads the arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.backtest.panel import Panel
from tidemill.calendars import ALWAYS, NEVER, calendar_named, own_slots
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.matching.rules import Floats
from tidemill.trading.account import Indices

_UNKNOWN = ""  # of a symbol without an instrument: every slot of the panel is one of its own


class Sessions(NamedTuple):
    """group: [symbols] which calendar. opens, closes: [slots] epoch microseconds; an order is decided at `closes`. due: [slots,
    calendars] when the slot opens for which an order waits that was decided here, NEVER where the panel has none.
    ordinal: [slots, calendars] how many slots of that calendar there were up to here.
    """

    group: Indices
    opens: Indices
    closes: Indices
    due: Indices
    ordinal: Indices


def sessions_of(panel: Panel, interval: Interval, instruments: Mapping[str, Instrument]) -> Sessions | None:
    """None where all symbols follow one calendar: every slot is everybody's then."""
    names, group = _groups(panel.axes.symbols, instruments)
    if len(names) == 1:
        return None
    opens = panel.axes.times
    closes = opens + interval.microseconds
    bars = ~np.isnan(panel.close)
    own = [_own(opens, name, interval, bars[:, group == at]) for at, name in enumerate(names)]
    due = [_due(opens[held], closes, name, interval) for name, held in zip(names, own, strict=True)]
    return Sessions(group, opens, closes, np.stack(due, axis=1), np.cumsum(np.stack(own, axis=1), axis=0))


def contiguous_slots(panel: Panel, interval: Interval, instruments: Mapping[str, Instrument]) -> NDArray[np.bool_]:
    """Whether each slot is the next of the one before it, for symbols of one calendar: only where trading never stops can a
    slot be missing that no symbol has.
    """
    times = panel.axes.times
    names, _ = _groups(panel.axes.symbols, instruments)
    if names != [ALWAYS]:
        return np.ones(len(times), dtype=np.bool_)
    return np.diff(times, prepend=times[0]) <= interval.microseconds


def changes(close: Floats, sessions: Sessions | None) -> Floats:
    """Change of each close since the slot before of its own calendar: [slots, symbols], NaN where either has no bar."""
    change = np.full(close.shape, np.nan)
    if sessions is None:
        change[1:] = close[1:] / close[:-1] - 1.0
        return change
    for at in range(sessions.ordinal.shape[1]):
        rows = np.flatnonzero(np.diff(sessions.ordinal[:, at], prepend=0))
        own = close[np.ix_(rows, np.flatnonzero(sessions.group == at))]
        change[np.ix_(rows[1:], np.flatnonzero(sessions.group == at))] = own[1:] / own[:-1] - 1.0
    return change


def _groups(symbols: tuple[str, ...], instruments: Mapping[str, Instrument]) -> tuple[list[str], Indices]:
    followed = [instruments[symbol].calendar if symbol in instruments else _UNKNOWN for symbol in symbols]
    names = sorted(set(followed))
    place = {name: at for at, name in enumerate(names)}
    return names, np.array([place[name] for name in followed], dtype=np.int64)


def _own(opens: Indices, name: str, interval: Interval, bars: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if name == _UNKNOWN:
        return np.ones(len(opens), dtype=np.bool_)
    return own_slots(name, interval, opens, np.asarray(bars.any(axis=1), dtype=np.bool_))


def _due(held: Indices, closes: Indices, name: str, interval: Interval) -> Indices:
    """held: the panel's slots of this calendar. One that never closes has slots that the panel lacks: an order for those is due
    all the same, and passes.
    """
    due: Indices = np.append(held, NEVER)[np.searchsorted(held, closes)]
    if name == _UNKNOWN or not calendar_named(name).never_closes:
        return due
    return np.minimum(due, calendar_named(name).next_slots(interval, closes))
