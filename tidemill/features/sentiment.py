"""Sentiment of news as columns of bars: what was known at each bar's close, and nothing that was known later.

With s and n the sum and the number of scores of the items that became known since the symbol's bar before (an item that is
known exactly at a close belongs to that bar), and d = 2^(-1 / half_life) for each of the symbol's own bars:

    sentiment_surprise = s / n - S / (N + 1) of the bar before; 0 without an item
    S = d * S + s,  N = d * N + n
    sentiment_mean = S / (N + 1)        decayed mean score, drawn towards 0 by one neutral item, so that old news fades
    sentiment_count = N                 decayed number of items

All three are NaN until the first item of a symbol is known. Recursive: a state goes from stretch to stretch, and computing in
stretches gives the bits of computing at once. The bits depend neither on other symbols nor on the order of the items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError, IntegrityError
from tidemill.features.expression import SENTIMENT

if TYPE_CHECKING:
    import polars as pl

_UNKNOWN = (math.nan, math.nan, math.nan)


class Mood(msgspec.Struct, frozen=True):
    """State of one symbol after its last bar. total, weight: S and N. seen: whether an item was known.

    until: close of that bar, in microseconds since 1970; items known up to then are in the state.
    """

    total: float = 0.0
    weight: float = 0.0
    seen: bool = False
    until: int = -(2**62)


class SentimentState(msgspec.Struct, frozen=True):
    """States of all symbols after some bar. half_life: with which they were made."""

    half_life: float
    moods: dict[str, Mood] = {}

    def to_bytes(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> SentimentState:
        """IntegrityError for what `to_bytes` did not make."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as exc:
            raise IntegrityError("The stored state of the sentiment is damaged. Remove it; it will be computed again.") from exc


def sentiment(
    bars: pl.DataFrame, items: pl.DataFrame, length: timedelta, *, half_life: float, state: SentimentState | None = None
) -> tuple[pl.DataFrame, SentimentState]:
    """`symbol, open_time` of `bars` and the columns SENTIMENT, and the state after them.

    bars: symbol, open_time, sorted by both. items: symbol, known_at, score (in [-1, 1]), in any order; those without a score
    count for nothing. length: of a bar; its close is known then. state: of what came before; items known by then are skipped.
    """
    import polars as pl

    require_half_life(half_life)
    if state is not None and state.half_life != half_life:
        raise InputError(f"The state was made with a half-life of {state.half_life}, not {half_life}. Start without a state.")
    after = dict(state.moods) if state is not None else {}
    known = _items_by_symbol(items)
    parts: list[tuple[float, float, float]] = []
    for symbol, closes in _closes_by_symbol(bars, length):
        rows, after[symbol] = _scan(closes, known.get(symbol, []), 2.0 ** (-1.0 / half_life), after.get(symbol, Mood()))
        parts += rows
    made = pl.DataFrame(parts, schema=dict.fromkeys(SENTIMENT, pl.Float64), orient="row")
    return bars.select("symbol", "open_time").hstack(made), SentimentState(half_life, after)


def require_half_life(half_life: float) -> None:
    """InputError unless it is a finite number above zero."""
    if not 0.0 < half_life < math.inf:
        raise InputError(f"The half-life of sentiment is {half_life}; give a number of bars above zero.")


def _closes_by_symbol(bars: pl.DataFrame, length: timedelta) -> Iterator[tuple[str, list[int]]]:
    import polars as pl

    closes = bars.select("symbol", (pl.col("open_time") + length).dt.epoch("us").alias("close"))
    yield from closes.group_by("symbol", maintain_order=True).agg("close").iter_rows()


def _items_by_symbol(items: pl.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """Symbol → (known_at in microseconds, score) in order of time."""
    import polars as pl

    kept = items.filter(pl.col("score").is_finite()).sort("known_at")
    grouped = kept.group_by("symbol").agg(pl.col("known_at").dt.epoch("us"), "score")
    return {symbol: list(zip(times, scores, strict=True)) for symbol, times, scores in grouped.iter_rows()}


def _scan(
    closes: list[int], items: list[tuple[int, float]], decay: float, mood: Mood
) -> tuple[list[tuple[float, float, float]], Mood]:
    """The rows of one symbol's bars, and its state after them."""
    place = next((at for at, (time, _) in enumerate(items) if time > mood.until), len(items))
    rows: list[tuple[float, float, float]] = []
    for close in closes:
        scores: list[float] = []
        while place < len(items) and items[place][0] <= close:
            scores.append(items[place][1])
            place += 1
        row, mood = step_mood(mood, scores, close, decay)
        rows.append(row)
    return rows, mood


def step_mood(mood: Mood, scores: Sequence[float], close: int, decay: float) -> tuple[tuple[float, float, float], Mood]:
    """SENTIMENT of a symbol's bar that closes at `close`, and its state after it.

    scores: of the items that became known since the bar before. decay: d of the module.
    """
    # fsum is exact before it rounds once: the order of items known at the same time changes no bit.
    total, before = math.fsum(scores), mood.total / (mood.weight + 1.0)
    after = Mood(decay * mood.total + total, decay * mood.weight + len(scores), mood.seen or bool(scores), close)
    surprise = total / len(scores) - before if scores else 0.0
    return (after.total / (after.weight + 1.0), after.weight, surprise) if after.seen else _UNKNOWN, after
