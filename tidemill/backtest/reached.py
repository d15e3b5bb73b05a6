"""What its limits did to a book, read off what the kernel wrote of it slot by slot."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np

from tidemill.backtest.panel import Axes
from tidemill.backtest.scan import Outputs
from tidemill.domain.intervals import EPOCH
from tidemill.domain.limits_reached import LevelReached, LimitsReached
from tidemill.matching.kernel import COLLAR
from tidemill.risk.drawdown import ACTIONS, BLOCK, NORMAL
from tidemill.risk.limits import UNLEVERED
from tidemill.trading.account import GROSS, NET, POSITION, Account, Indices, Terms


def limits_reached(axes: Axes, account: Account, outputs: Outputs, terms: Terms) -> LimitsReached | None:
    """None where a run states no limits."""
    if not (terms.guarded or math.isfinite(terms.rules.collar) or terms.limits != UNLEVERED):
        return None
    clips = {"position": POSITION, "gross": GROSS, "net": NET}
    return LimitsReached(
        slots=len(outputs.level),
        levels=tuple(_level(axes, outputs, terms, action) for action in sorted({*outputs.level.tolist()} - {NORMAL})),
        held_back=int((outputs.level >= BLOCK).sum()),
        flat_since=_flat_since(axes, outputs, terms),
        cut={name: int(account.clips[kind]) for name, kind in clips.items()},
        collar=int(account.outcomes[COLLAR]),
    )


def _level(axes: Axes, outputs: Outputs, terms: Terms, action: int) -> LevelReached:
    there = outputs.level == action
    first, before = int(np.argmax(there)), np.concatenate(([False], there[:-1]))
    return LevelReached(
        level=ACTIONS[action],
        limit=_limit(terms, action),
        first=_time(axes.times, first),
        drawdown=float(outputs.drawdown[first]),
        times=int((there & ~before).sum()),
        slots=int(there.sum()),
    )


def _limit(terms: Terms, action: int) -> float:
    """Where a level begins."""
    found: float = getattr(terms.policy, ACTIONS[action])
    return found


def _flat_since(axes: Axes, outputs: Outputs, terms: Terms) -> datetime | None:
    """From when on nothing was held, if a level was in force at the end that no calm releases: half of it or more is lost."""
    action = int(outputs.level[-1])
    if action == NORMAL or outputs.gross[-1] > 0.0 or outputs.drawdown[-1] < 0.5 * _limit(terms, action):
        return None
    held = np.flatnonzero(outputs.gross > 0.0)
    return _time(axes.times, int(held[-1]) + 1 if len(held) else 0)


def _time(times: Indices, slot: int) -> datetime:
    return EPOCH + timedelta(microseconds=int(times[slot]))
