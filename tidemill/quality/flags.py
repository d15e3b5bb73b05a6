"""Suspicious bars that stay: a spike that reverts, a bar without volume, a move that looks like a corporate action.

A flag carries `flagged_at`, the moment from which it can be known; whoever acts on it earlier looks ahead.
"""

from enum import StrEnum

import polars as pl

# Both legs of a spike, in logarithms, and how far the second may miss the start. Argued from the S&P panel: they find nine
# bars there, among them the halved LNT and a day of mixed-up closes, 2017-09-14; news seldom comes back so closely.
SPIKE_MOVE = 0.15
SPIKE_MISS = 0.25
# Overnight, as a simple return (NUMBERS, Fills and accounts).
ACTION_MOVE = 0.35

_TIME = pl.Datetime("us", "UTC")
FLAG_SCHEMA = pl.Schema(
    {"symbol": pl.String(), "open_time": _TIME, "flag": pl.String(), "flagged_at": _TIME, "detail": pl.String()}
)


class Flag(StrEnum):
    """What is suspicious about a bar that was kept."""

    SPIKE = "spike"  # one close far off, back at the next bar; flagged_at: the close of that next bar
    ZERO_VOLUME = "zero_volume"
    SUSPECTED_ACTION = "suspected_action"  # an overnight gap that the next bar did not revert; flagged_at: its close


def flag_bars(bars: pl.DataFrame, *, has_actions: bool) -> pl.DataFrame:
    """Flags of `bars`: a frame of FLAG_SCHEMA, sorted by symbol, open_time and flag.

    bars: symbol, open_time, open, close, volume, known_at; sorted by symbol and open_time. has_actions: the source tells
    splits and dividends, so no gap needs to be suspected. Null and NaN cells raise no flag. What is flagged by a moment does
    not depend on bars after it.
    """
    bars = bars.select(
        "symbol", "open_time", "known_at", "volume", *(pl.col(c).fill_nan(None) for c in ("open", "close"))
    ).with_columns(
        before=_neighbour("close", 1),
        after=_neighbour("close", -1),
        next_known=_neighbour("known_at", -1),
    )
    bars = bars.with_columns(spike=_is_spike().fill_null(False))
    found = [_flags(bars, Flag.SPIKE, pl.col("spike"), "next_known", _spike_detail())]
    found.append(_flags(bars, Flag.ZERO_VOLUME, pl.col("volume") == 0, "known_at", pl.lit("")))
    if not has_actions:
        after_spike = _neighbour("spike", 1).fill_null(False)
        gap = _is_gap() & ~after_spike & ~pl.col("spike")
        found.append(_flags(bars, Flag.SUSPECTED_ACTION, gap, "next_known", _gap_detail()))
    return pl.concat(found).sort("symbol", "open_time", "flag")


def _neighbour(column: str, steps: int) -> pl.Expr:
    """The value `steps` rows before, null where that row is another symbol's."""
    same = pl.col("symbol") == pl.col("symbol").shift(steps)
    return pl.when(same).then(pl.col(column).shift(steps))


def _is_spike() -> pl.Expr:
    there = (pl.col("close") / pl.col("before")).log()
    back = (pl.col("after") / pl.col("close")).log()
    return (there.abs() >= SPIKE_MOVE) & ((there + back).abs() <= SPIKE_MISS * there.abs())


def _is_gap() -> pl.Expr:
    """The open, this close and the next close all lie beyond the limit, on the same side of the close before."""
    moves = [pl.col(price) / pl.col("before") - 1 for price in ("open", "close", "after")]
    up = pl.all_horizontal(move > ACTION_MOVE for move in moves)
    down = pl.all_horizontal(move < -ACTION_MOVE for move in moves)
    return up | down


def _spike_detail() -> pl.Expr:
    return pl.format("close {} between {} and {}", "close", "before", "after")


def _gap_detail() -> pl.Expr:
    move = (100 * (pl.col("open") / pl.col("before") - 1)).round(1)
    return pl.format("opened {} % from the close {} and did not come back", move, "before")


def _flags(bars: pl.DataFrame, flag: Flag, condition: pl.Expr, known: str, detail: pl.Expr) -> pl.DataFrame:
    # polars 2.1 panics when it formats columns that are chunked differently
    hit = bars.filter(condition.fill_null(False)).rechunk()
    return hit.select(
        "symbol", "open_time", pl.lit(flag.value).alias("flag"), pl.col(known).alias("flagged_at"), detail.alias("detail")
    ).cast(dict(FLAG_SCHEMA))  # type: ignore[arg-type]  # a schema of instances is a valid cast
