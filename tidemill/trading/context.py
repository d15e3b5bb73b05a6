"""What is known beside the bars of a slot: the step of the Fear & Greed Index and of the sentiment of news.

Its batches are `market.fear_greed.as_known` with `join_known`, and `features.sentiment.sentiment`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidemill.features.expression import FEAR_GREED, SENTIMENT
from tidemill.features.sentiment import Mood, SentimentState, require_half_life, step_mood
from tidemill.market.fear_greed import HELD

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MICROSECOND = timedelta(microseconds=1)
_WEEK = timedelta(days=7) // _MICROSECOND
_HELD = HELD // _MICROSECOND


class IndexVersion(NamedTuple):
    """A value of the index as it became known; epoch microseconds."""

    stamp: int
    value: float
    known_at: int


class IndexState(msgspec.Struct, frozen=True):
    """The newest day that is known, since when, and what is known of the days of the week before it."""

    stamp: int = -(2**62)
    known_at: int = -(2**62)
    value: float = math.nan
    change: float = math.nan
    days: Mapping[int, float] = {}


class ContextState(msgspec.Struct, frozen=True):
    """What a context goes on from; it holds NaN, which JSON does not.

    unread: scores of symbols that have had no bar since they were told.
    """

    index: IndexState
    sentiment: SentimentState
    unread: Mapping[str, tuple[float, ...]] = {}


class Context:
    """Values of CONTEXT for the bars of `symbols`, slot by slot, from `state` on.

    half_life: of the sentiment, in a symbol's own bars. Raises InputError for one that is no number of bars.
    """

    def __init__(self, symbols: Sequence[str], half_life: float, state: ContextState | None = None) -> None:
        require_half_life(half_life)
        self.symbols, self._half_life = tuple(symbols), half_life
        self._index = state.index if state is not None else IndexState()
        self._moods = dict(state.sentiment.moods) if state is not None else {}
        self._unread = {symbol: list(scores) for symbol, scores in state.unread.items()} if state is not None else {}

    def state(self) -> ContextState:
        """After the last step."""
        unread = {symbol: tuple(scores) for symbol, scores in self._unread.items()}
        return ContextState(self._index, SentimentState(self._half_life, dict(self._moods)), unread)

    def step(
        self,
        closed: int,
        present: Flags,
        versions: Iterable[IndexVersion] = (),
        items: Iterable[tuple[str, float]] = (),
    ) -> dict[str, float | Floats]:
        """Column → value, of all symbols or of each, for the bars that close at `closed` (epoch microseconds).

        versions: of the index, and items: symbol and score of the news, that became known since the slot before, in order of
        time. present: which symbols have a bar; what was said of another waits for its next one.
        """
        for version in versions:
            self._index = _with_version(self._index, version)
        for symbol, score in items:
            if math.isfinite(score):
                self._unread.setdefault(symbol, []).append(score)
        held = closed - self._index.known_at <= _HELD
        index = (self._index.value, self._index.change) if held else (math.nan, math.nan)
        return {**dict(zip(FEAR_GREED, index, strict=True)), **self._sentiment(closed, present)}

    def _sentiment(self, closed: int, present: Flags) -> dict[str, float | Floats]:
        decay = 2.0 ** (-1.0 / self._half_life)
        rows = np.full((len(SENTIMENT), len(self.symbols)), np.nan)
        for at in np.flatnonzero(present):
            symbol = self.symbols[at]
            scores = self._unread.pop(symbol, [])
            rows[:, at], self._moods[symbol] = step_mood(self._moods.get(symbol, Mood()), scores, closed, decay)
        return dict(zip(SENTIMENT, rows, strict=True))


def _with_version(state: IndexState, version: IndexVersion) -> IndexState:
    """A version of an old day that comes after a newer day was known changes no value any more, but what is compared with."""
    days = {stamp: value for stamp, value in state.days.items() if stamp >= state.stamp - _WEEK} | {
        version.stamp: version.value
    }
    if version.stamp < state.stamp:
        return msgspec.structs.replace(state, days=days)
    change = version.value - days.get(version.stamp - _WEEK, math.nan)
    return IndexState(version.stamp, version.known_at, version.value, change, days)
