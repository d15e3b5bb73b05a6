"""Corporate actions: derived from a source's adjusted close, and applied so that no bar ever depends on a later action.

An adjusted close is the raw close times a factor that changes only on ex days. Its steps are the actions: a simple ratio is a
split, the rest is cash.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.errors import InputError
from tidemill.domain.market import AdjustmentKind
from tidemill.market.steps import Step, ratio_steps

Basis = Literal["ex_close", "previous_close"]

_TIME = pl.Datetime("us", "UTC")
ADJUSTMENT_SCHEMA = pl.Schema(
    {"symbol": pl.String(), "kind": pl.String(), "ex_time": _TIME, "value": pl.Float64(), "known_at": _TIME}
)
# New shares for one old; reverse splits are their inverses.
_SPLITS = (5 / 4, 4 / 3, 3 / 2, 5 / 3, 2.0, 5 / 2, *map(float, range(3, 13)), 15.0, 20.0, 25.0, 30.0, 50.0, 100.0)
# A large cash dividend looks like one of these: they need a ratio known to 0.01 %.
_STOCK_DIVIDENDS = (1.05, 1.1, 1.2)
_STOCK_DIVIDEND_ERROR = 1e-4
# Sources write 4:3 as 1.3333; beyond 1 % of rounding error a ratio says nothing about its kind.
_SPLIT_TOLERANCE = 1e-4
_MAX_SPLIT_ERROR = 0.01
_CASH_TOLERANCE = 2e-6
# A split with an ordinary dividend on the same day leaves at most this much beside the simple ratio.
_MAX_DIVIDEND_WITH_SPLIT = 0.03
# An adjusted close that is wrong for so few rows is a slip of the source, not two actions.
_SLIP_ROWS = 5
# Rounding is at first taken to be half a unit; sources that round twice, or the raw close too, need more.
_SLACKS = (1.001, 2.0, 4.0, 8.0)
_MIN_ROWS_PER_STEP = 8.0


@dataclass(frozen=True, slots=True)
class _Action:
    at: int
    split: float
    ratio: float
    error: float


def derive_adjustments(bars: pl.DataFrame, *, basis: Basis | None = None) -> pl.DataFrame:
    """Splits and dividends told by `adjusted_close`: a frame of ADJUSTMENT_SCHEMA, sorted by symbol, ex_time, kind.

    bars: symbol, open_time, close, adjusted_close, known_at, sorted by symbol and open_time (`Validated.adjusted`). Rows
    without a positive close and adjusted close are passed over. An action's known_at is that of its ex bar. InputError when a
    column is missing.

    Rounding makes no phantom dividend: a step is one only where no constant factor explains both sides; where the rounding
    hides it on the ex day itself, it is dated at the first bar that proves it. basis: how the source turns cash D into a
    factor, (C + D) / C with the ex day's close (Quandl WIKI) or P / (P - D) with the close before (CRSP, Yahoo); None takes the
    one that gives the rounder amounts, and previous_close where the data cannot tell.
    """
    missing = [name for name in ("symbol", "open_time", "close", "adjusted_close", "known_at") if name not in bars.columns]
    if missing:
        raise InputError(f"Corporate actions cannot be derived without the column {', '.join(missing)}.")
    usable = bars.filter((pl.col("close") > 0) & (pl.col("adjusted_close") > 0) & pl.col("adjusted_close").is_finite())
    found = [(part, _actions(part)) for part in usable.partition_by("symbol", maintain_order=True)]
    chosen = basis or _rounder_basis(found)
    rows = [row for part, actions in found for action in actions for row in _rows(part, action, chosen)]
    return pl.DataFrame(rows, schema=ADJUSTMENT_SCHEMA, orient="row").sort("symbol", "ex_time", "kind")


def adjust(bars: pl.DataFrame, adjustments: pl.DataFrame) -> pl.DataFrame:
    """Bars on a total-return basis, forward-adjusted: same columns, rows sorted by symbol and open_time.

    Prices are multiplied by the cumulative factor of the actions with ex_time ≤ open_time that had been told by the bar's
    known_at; volume is divided by the splits in it. So a bar never depends on a later action or bar, the first bar of each
    symbol keeps its raw price (what went ex by then moved no price in the frame), and a close-to-close return across an ex day
    is (split · C + D) / P - 1, what a holder got. quote_volume / volume stays a price on the same basis. Null prices stay null.
    """
    ordered = bars.sort("symbol", "open_time", maintain_order=True)
    if not adjustments.height or not bars.height:
        return ordered
    steps = _bar_steps(ordered, adjustments)
    if not steps.height:
        return ordered
    factors = ordered.join(steps, on=["symbol", "open_time"], how="left", maintain_order="left").select(
        pl.col("factor").fill_null(1.0).cum_prod().over("symbol"), pl.col("split").fill_null(1.0).cum_prod().over("symbol")
    )
    factor, split = factors["factor"], factors["split"]
    prices = [pl.col(name) * factor for name in ("open", "high", "low", "close") if name in bars.columns]
    quoted = [pl.col("quote_volume") * (factor / split)] if "quote_volume" in bars.columns else []
    return ordered.with_columns(*prices, *quoted, pl.col("volume") / split)


# --- deriving --------------------------------------------------------------------------------------------------------------


def _actions(part: pl.DataFrame) -> list[_Action]:
    """Actions of one symbol, under the least rounding noise that leaves only possible ones."""
    adjusted, close = part["adjusted_close"].to_numpy(), part["close"].to_numpy()
    actions: list[_Action] = []
    for slack in _SLACKS:
        actions = [_classified(step) for step in _without_slips(ratio_steps(adjusted, close, slack))]
        sparse = len(actions) * _MIN_ROWS_PER_STEP <= len(adjusted)
        if (sparse or len(actions) <= 1) and all(_is_possible(action) for action in actions):
            return actions
    # Still noisy: only what noise of this size does not make.
    return [action for action in actions if action.split != 1.0]


def _without_slips(steps: list[Step]) -> list[Step]:
    """Without those pairs of neighbours that undo each other within a few rows."""
    kept: list[Step] = []
    for step in steps:
        last = kept[-1] if kept else None
        if (
            last
            and step.at - last.at <= _SLIP_ROWS
            and abs(step.ratio * last.ratio - 1) <= step.error + last.error + _SPLIT_TOLERANCE
        ):
            kept.pop()
        else:
            kept.append(step)
    return kept


def _classified(step: Step) -> _Action:
    return _Action(step.at, _split_of(step), step.ratio, step.error)


def _split_of(step: Step) -> float:
    """New shares for one old, 1 where the step is cash alone, as the factor of a spin-off is."""
    if step.error > _MAX_SPLIT_ERROR:
        return 1.0
    exact = [*_SPLITS, *(1 / size for size in _SPLITS)]
    if step.error <= _STOCK_DIVIDEND_ERROR:
        exact += [size for size in _STOCK_DIVIDENDS if abs(step.ratio / size - 1) <= max(step.error, _CASH_TOLERANCE)]
    tolerance = max(step.error, _SPLIT_TOLERANCE)
    nearest = min(exact, key=lambda size: abs(step.ratio / size - 1))
    if abs(step.ratio / nearest - 1) <= tolerance:
        return nearest
    usual = [3 / 2, 2.0, 3.0, 4.0, *(1 / size for size in _SPLITS if size >= 2)]
    with_dividend = [size for size in usual if tolerance < step.ratio / size - 1 <= _MAX_DIVIDEND_WITH_SPLIT]
    return with_dividend[0] if with_dividend else 1.0


def _excess(action: _Action) -> float:
    """What the step leaves beside the split, relative; 0 where the data cannot tell it from nothing."""
    excess = action.ratio / action.split - 1
    floor = _CASH_TOLERANCE if action.split == 1.0 else _SPLIT_TOLERANCE
    return excess if abs(excess) > max(action.error, floor) else 0.0


def _is_possible(action: _Action) -> bool:
    return _excess(action) >= 0


def _cash(part: pl.DataFrame, action: _Action, basis: Basis) -> float:
    """Cash for one share held before the ex time, raw price units."""
    close: NDArray[np.float64] = part["close"].to_numpy()
    if basis == "ex_close":
        return float(close[action.at] * (action.ratio - action.split))
    return float(close[action.at - 1] * (1 - action.split / action.ratio))


def _rounder_basis(found: list[tuple[pl.DataFrame, list[_Action]]]) -> Basis:
    """Dividends are declared in round amounts: the basis under which they lie closer to half cents, if it is clearly closer."""
    paid = [(part, action) for part, actions in found for action in actions if _excess(action) > 0]
    if not paid:
        return "previous_close"
    on_ex_day = np.median([_off_half_cents(_cash(part, action, "ex_close")) for part, action in paid])
    day_before = np.median([_off_half_cents(_cash(part, action, "previous_close")) for part, action in paid])
    return "ex_close" if on_ex_day < day_before / 2 else "previous_close"


def _off_half_cents(cash: float) -> float:
    return abs(cash - round(cash * 200) / 200)


def _rows(part: pl.DataFrame, action: _Action, basis: Basis) -> Iterator[tuple[object, ...]]:
    symbol, ex_time, known_at = (part[name][action.at] for name in ("symbol", "open_time", "known_at"))
    if action.split != 1.0:
        yield symbol, AdjustmentKind.SPLIT.value, ex_time, action.split, known_at
    if _excess(action) > 0:
        # Micro-units of the currency: what is beyond is the noise of float64.
        yield symbol, AdjustmentKind.DIVIDEND.value, ex_time, round(_cash(part, action, basis), 6), known_at


# --- applying --------------------------------------------------------------------------------------------------------------


def _bar_steps(ordered: pl.DataFrame, adjustments: pl.DataFrame) -> pl.DataFrame:
    """symbol, open_time, factor, split: one row for each bar from which actions count, with what they multiply."""
    bars = ordered.select("symbol", "open_time", "known_at", "close", pl.col("open_time").min().over("symbol").alias("first"))
    priced = bars.filter(pl.col("close") > 0).rename({"open_time": "ex_bar"}).sort("ex_bar")
    told = adjustments.rename({"known_at": "told_at"}).sort("ex_time")
    on_bars = told.join_asof(
        priced, left_on="ex_time", right_on="ex_bar", by="symbol", strategy="forward", check_sortedness=False
    ).filter(pl.col("ex_bar") > pl.col("first"))
    split = pl.col("value").filter(pl.col("kind") == AdjustmentKind.SPLIT.value).product()
    cash = pl.col("value").filter(pl.col("kind") == AdjustmentKind.DIVIDEND.value).sum()
    # What was told together is one step: `cash` is for an old share, the close is that of a new one.
    steps = on_bars.group_by("symbol", "ex_bar", "told_at", "known_at").agg(
        split.alias("split"), (split + cash / pl.col("close").first()).alias("factor")
    )
    counted = _counted_from(steps, bars).sort("symbol", "open_time", "ex_bar", "told_at")
    return counted.group_by("symbol", "open_time", maintain_order=True).agg(
        pl.col("factor").product(), pl.col("split").product()
    )


def _counted_from(steps: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """Adds `open_time`, the bar from which a step counts: its ex bar, or the first later one at whose time it had been told."""
    timely = steps.filter(pl.col("told_at") <= pl.col("known_at")).with_columns(open_time=pl.col("ex_bar"))
    late = steps.filter(pl.col("told_at") > pl.col("known_at"))
    reached = (
        late.drop("known_at")
        .join(bars.select("symbol", "open_time", "known_at"), on="symbol")
        .filter((pl.col("open_time") > pl.col("ex_bar")) & (pl.col("known_at") >= pl.col("told_at")))
    )
    first = reached.sort("open_time").unique(["symbol", "ex_bar", "told_at"], keep="first", maintain_order=True)
    columns = ["symbol", "open_time", "ex_bar", "told_at", "factor", "split"]
    return pl.concat([timely.select(columns), first.select(columns)])
