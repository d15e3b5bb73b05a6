"""Adjusting bar by bar: the step of `adjustments.adjust`, with its bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry
from tidemill.domain.market import AdjustmentKind

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Rows of a slot, in this order.
COLUMNS = ("open", "high", "low", "close", "volume", "quote_volume")
_CLOSE = COLUMNS.index("close")


class ToldAction(NamedTuple):
    """A corporate action as it is told. ex_time, told_at: epoch microseconds.

    ex_bar, ex_close: of one that is told after its ex bar: when that opened, and its raw close; −1 and NaN while it is to come.
    """

    symbol: str
    kind: str
    ex_time: int
    value: float
    told_at: int
    ex_bar: int = -1
    ex_close: float = float("nan")


class Adjusted(NamedTuple):
    """State: cumulative factor of prices and of shares, whether there was a bar yet, [symbols]; waiting: told, not counted."""

    symbols: tuple[str, ...]
    factor: Floats
    split: Floats
    started: Flags
    waiting: tuple[ToldAction, ...]


class Adjuster:
    """Bars of `symbols` on a total-return basis, slot by slot, from `state` on; what it does not know is newly listed."""

    def __init__(self, symbols: Sequence[str], state: Adjusted | None = None) -> None:
        self.symbols = tuple(symbols)
        self._place = {symbol: at for at, symbol in enumerate(self.symbols)}
        self._factor, self._split = np.ones(len(symbols)), np.ones(len(symbols))
        self._started, self._waiting = np.zeros(len(symbols), dtype=np.bool_), list[ToldAction]()
        for at, symbol in enumerate(state.symbols) if state is not None else ():
            if state is not None and symbol in self._place:
                place = self._place[symbol]
                self._factor[place], self._split[place] = state.factor[at], state.split[at]
                self._started[place] = state.started[at]
        if state is not None:
            self._waiting = [action for action in state.waiting if action.symbol in self._place]
        self._all_started = False  # known to be; while it is not known, flags are counted
        self._made = np.empty((len(COLUMNS), len(symbols)))

    def state(self) -> Adjusted:
        """What another goes on from."""
        return Adjusted(self.symbols, self._factor.copy(), self._split.copy(), self._started.copy(), tuple(self._waiting))

    def step(self, open_time: int, rows: Floats, present: Flags | None = None, told: Sequence[ToldAction] = ()) -> Floats:
        """Adjusted rows [COLUMNS, symbols] of one slot; NaN where a value is missing. The array is reused by the next step.

        present: which symbols have a bar; all when not given. told: actions that became known with these bars and not before.
        """
        self.count(open_time, rows, present, told)
        adjust_rows(rows, self._factor, self._split, self._made)
        return self._made

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats]:
        """What `adjust_rows` takes beside a slot's rows, as long as the adjuster lives: factor, split, and where it writes."""
        return self._factor, self._split, self._made

    def count(self, open_time: int, rows: Floats, present: Flags | None = None, told: Sequence[ToldAction] = ()) -> None:
        """The first half of `step`: all but the prices."""
        if told:
            self._waiting.extend(action for action in told if action.symbol in self._place)
        if self._waiting:
            self._count(open_time, rows[_CLOSE], present)
        if not self._all_started:
            self._started |= True if present is None else present
            self._all_started = bool(self._started.all())

    def _count(self, open_time: int, close: Floats, present: Flags | None) -> None:
        """Let count what is told and has reached its ex bar. What went ex by the first bar moved no price."""
        kept: list[ToldAction] = []
        counted: dict[int, list[ToldAction]] = {}
        for action in self._waiting:
            place = self._place[action.symbol]
            there = present is None or bool(present[place])
            late, priced = action.ex_bar >= 0, close[place] > 0.0
            if not there or not (late or (priced and action.ex_time <= open_time)):
                kept.append(action)
            elif late or self._started[place]:
                now = action if late else action._replace(ex_bar=open_time, ex_close=float(close[place]))
                counted.setdefault(place, []).append(now)
        self._waiting = kept
        for place, actions in counted.items():
            steps = list(_steps(actions))
            self._factor[place] *= prod(factor for factor, _ in steps)
            self._split[place] *= prod(split for _, split in steps)


def _steps(actions: list[ToldAction]) -> Iterator[tuple[float, float]]:
    """Factor and split of what was told together: cash is for an old share, the close is that of a new one."""
    order = sorted(actions, key=lambda action: (action.ex_bar, action.told_at))
    for _, together in groupby(order, key=lambda action: (action.ex_bar, action.told_at)):
        own = list(together)
        split = prod(action.value for action in own if action.kind == AdjustmentKind.SPLIT.value)
        cash = sum(action.value for action in own if action.kind == AdjustmentKind.DIVIDEND.value)
        yield split + cash / own[0].ex_close, float(split)


@entry
def adjust_rows(rows: Floats, factor: Floats, split: Floats, made: Floats) -> None:
    """made := rows [open, high, low, close, volume, quote volume; symbols] on a total-return basis."""
    for j in range(factor.size):
        for price in range(4):
            made[price, j] = rows[price, j] * factor[j]
        made[4, j] = rows[4, j] / split[j]
        made[5, j] = rows[5, j] * (factor[j] / split[j])


def late(action: ToldAction, bars: Mapping[int, float], first: int) -> ToldAction | None:
    """`action` as it is told when its ex bar has passed; None where that was the `first` bar, so that it moved no price.

    bars: open time → raw close of the symbol's priced bars until then, ascending.
    """
    for open_time, close in bars.items():
        if open_time >= action.ex_time:
            return action._replace(ex_bar=open_time, ex_close=close) if open_time > first else None
    return action
