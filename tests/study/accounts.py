"""What an account came to slot by slot, stepped by a chain or booked by a backtest, to be compared bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from tidemill.backtest.result import BacktestResult
from tidemill.matching.kernel import OUTCOMES
from tidemill.study.book import Span, traded
from tidemill.study.study import Study
from tidemill.trading.account import BORROW, CLIPS, DIVIDENDS, FEES, SLIPPAGE, TRADED
from tidemill.trading.ordering import AccountState, Traded
from tidemill.trading.slot import SETTLEMENT
from tidemill.trading.trades import TRADE_COLUMNS

_MARKED = ("equity", "gross", "net", "costs", "level")
_CHANGE = ("slot", "symbol", "side", "quantity", "price", "fee", "slippage", "kind")
_TRADE = ("symbol", "side", "entry", "exit", "entry_price", "exit_price", "quantity", "fees", "profit")
assert len(_TRADE) == TRADE_COLUMNS


class Kept(NamedTuple):
    """slots: of each one equity, exposures, costs and the level of the drawdown. changes: fills, settlements and splits.

    trades: ended round trips. Slots are counted from the account's first.
    """

    slots: pl.DataFrame
    changes: pl.DataFrame
    trades: pl.DataFrame


class Recorder:
    """Keeps what the steps of an account over `symbols` came to."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = tuple(symbols)
        self._slots: list[tuple[object, ...]] = []
        self._changes, self._trades = [np.empty((0, len(_CHANGE)))], [np.empty((0, TRADE_COLUMNS))]

    def take(self, time: datetime, traded: Traded) -> None:
        self._slots.append((time, *(float(getattr(traded, name)) for name in _MARKED)))
        self._changes.append(traded.changes.copy())
        self._trades.append(traded.trades.copy())

    def kept(self) -> Kept:
        schema = {"time": pl.Datetime("us", "UTC")} | dict.fromkeys(_MARKED, pl.Float64())
        slots = pl.DataFrame(self._slots, schema=schema, orient="row")
        changes, trades = np.concatenate(self._changes), np.concatenate(self._trades)
        return Kept(slots, _named(changes, _CHANGE, self._symbols), _named(trades, _TRADE, self._symbols))


def backtested(study: Study, weights: pl.DataFrame) -> BacktestResult:
    """The book of a run for weights (symbol, open_time, weight), from its first test window on."""
    return traded(study, weights, Span(study.folds[0].test_start))


def booked(result: BacktestResult) -> Kept:
    """The account of a backtest, with what it was told of suspected actions left in, as a session books it."""
    whole = result.with_suspected or result
    outputs, axes = whole._outputs, whole._axes
    marked = {name: np.asarray(getattr(outputs, name), dtype=np.float64) for name in _MARKED}
    slots = whole.equity.select("time").with_columns(**{name: pl.Series(values) for name, values in marked.items()})
    return Kept(slots, _named(whole._changes, _CHANGE, axes.symbols), _named(whole._ended, _TRADE, axes.symbols))


def _named(rows: np.ndarray, columns: Sequence[str], symbols: Sequence[str]) -> pl.DataFrame:  # type: ignore[type-arg]
    made = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.Float64()))
    codes = made["symbol"].cast(pl.Int64)
    return made.with_columns(pl.Series("symbol", symbols, dtype=pl.String).gather(codes).alias("symbol"))


def joined(parts: Iterable[Kept]) -> Kept:
    """Of stretches that follow each other."""
    return Kept(*(pl.concat(frames) for frames in zip(*parts, strict=True)))


def require_same_account(found: Kept, expected: Kept) -> int:
    """To the bit; how many fills there were.

    But for one thing: what has no bar at the last slot a backtest settles there, and a session goes on to hold. Then that slot
    is another one, and nothing else is.
    """
    last, settled = expected.slots.height - 1, expected.changes[found.changes.height :]
    assert settled.filter((pl.col("slot") != last) | (pl.col("kind") != SETTLEMENT)).is_empty()
    same = last if settled.height else last + 1
    assert found.slots.height == last + 1
    assert differing_columns(found.slots.head(same), expected.slots.head(same)) == []
    assert differing_columns(found.changes, expected.changes.head(found.changes.height)) == []
    assert differing_columns(found.trades, expected.trades.head(found.trades.height)) == []
    assert found.trades.height == expected.trades.height - settled.height
    return found.changes.height


def differing_columns(found: pl.DataFrame, expected: pl.DataFrame) -> list[str]:
    """Columns that differ in a bit, a sign of zero among them."""
    assert found.shape == expected.shape
    return [name for name in expected.columns if not np.array_equal(_bits(found[name]), _bits(expected[name]))]


def _bits(values: pl.Series) -> np.ndarray:  # type: ignore[type-arg]
    if values.dtype != pl.Float64:
        return values.to_numpy()
    numbers = values.to_numpy()
    return np.where(np.isnan(numbers), np.nan, numbers).view(np.int64)


def require_same_state(state: AccountState, result: BacktestResult, time: datetime) -> int:
    """What an account holds after the slot that opened at `time`; how many positions these are."""
    whole = result.with_suspected or result
    held = {name: units for name, units in zip(state.symbols, state.account.position.tolist(), strict=True) if units}
    assert held == dict(whole.positions.filter(time=time).select("symbol", "quantity").iter_rows())
    return len(held)


def require_same_totals(state: AccountState, result: BacktestResult) -> None:
    """After the last slot: what became of every order, why targets were cut, and all that was paid."""
    whole, account = result.with_suspected or result, state.account
    assert dict(zip(OUTCOMES, account.outcomes.tolist(), strict=True)) == whole.orders
    assert dict(zip(CLIPS, account.clips.tolist(), strict=True)) == whole.clips
    totals = {"fees": FEES, "slippage": SLIPPAGE, "borrow": BORROW, "dividends": DIVIDENDS, "traded": TRADED}
    assert {name: float(account.totals[at]) for name, at in totals.items()} == {name: getattr(whole, name) for name in totals}
