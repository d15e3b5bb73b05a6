"""What a backtest came to: numbers, and frames that are made when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.backtest.contributions import Contributions, Replay, contributions
from tidemill.backtest.panel import Axes
from tidemill.backtest.scan import Outputs, holdings
from tidemill.backtest.sessions import changes
from tidemill.domain.limits_reached import LimitsReached
from tidemill.matching.rules import Floats
from tidemill.trading.slot import (
    FEE,
    KIND,
    PRICE,
    QUANTITY,
    SETTLEMENT,
    SIDE,
    SLIP,
    SLOT,
    SPLIT_RATIO,
    SYMBOL,
)

if TYPE_CHECKING:
    import polars as pl


def _times(axes: Axes, slots: np.ndarray[Any, Any]) -> pl.Series:
    import polars as pl

    return pl.Series(axes.times[slots]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _symbols(axes: Axes, codes: np.ndarray[Any, Any]) -> pl.Series:
    import polars as pl

    return pl.Series(axes.symbols, dtype=pl.String).gather(codes)


@dataclass(frozen=True)
class BacktestResult:
    """The account over time. Cash is in the quote currency; a frame's `time` is the open_time of the bar at whose
    close the row holds.

    fees, slippage, borrow, dividends: totals in cash; slippage is part of the fill prices. traded: notional bought
    and sold. orders: what became of the orders (`matching.kernel.OUTCOMES`). clips: targets cut, and why
    (`trading.account.CLIPS`). limits: what its limits did to it; None where it was traded without any. notes: sentences
    for a person about everything that was clipped, cancelled, settled or ignored. with_suspected: the same run with profit
    and loss across suspected corporate actions left in; None if there were none. trial: its id in the ledger of
    evaluations; None: it is not counted there.
    """

    capital: float
    fees: float
    slippage: float
    borrow: float
    dividends: float
    traded: float
    years: float
    orders: dict[str, int]
    clips: dict[str, int]
    limits: LimitsReached | None
    notes: tuple[str, ...]
    with_suspected: BacktestResult | None = field(repr=False)
    _axes: Axes = field(repr=False)
    _outputs: Outputs = field(repr=False)
    _changes: Floats = field(repr=False)
    _ended: Floats = field(repr=False)
    _open: Floats = field(repr=False)
    _replay: Replay = field(repr=False)
    trial: str | None = None

    @property
    def final_equity(self) -> float:
        return float(self._outputs.equity[-1])

    @property
    def equity_values(self) -> Floats:
        """The column `equity` of the frame of that name, as an array."""
        return self._outputs.equity

    @property
    def trade_count(self) -> int:
        """Ended round trips."""
        return len(self._ended)

    @property
    def costs(self) -> float:
        """Fees, slippage and borrow together."""
        return self.fees + self.slippage + self.borrow

    @property
    def turnover(self) -> float:
        """Notional bought and sold, as a multiple of mean equity, a year; 0 for less than two bars."""
        mean = float(self._outputs.equity.mean())
        return self.traded / mean / self.years if mean > 0.0 and self.years > 0.0 else 0.0

    @property
    def max_drawdown(self) -> float:
        """Largest loss from a highest equity so far, as a negative share."""
        equity = self._outputs.equity
        return float((equity / np.maximum.accumulate(equity) - 1.0).min())

    @cached_property
    def equity(self) -> pl.DataFrame:
        """time, equity: one row for each slot."""
        return self._by_slot("equity", self._outputs.equity)

    @cached_property
    def returns(self) -> pl.DataFrame:
        """time, return: change of equity since the slot before, after all costs; one row fewer than `equity`. NaN
        after ruin.
        """
        return self._change(self._outputs.equity)

    @cached_property
    def gross_returns(self) -> pl.DataFrame:
        """time, return: what the same trades would have returned without fees, slippage and borrow."""
        return self._change(self._outputs.equity + self._outputs.costs)

    @cached_property
    def exposure(self) -> pl.DataFrame:
        """time, gross, net, drawdown_level: exposures as shares of equity, and the drawdown policy's level in force
        (0 when off).
        """
        import polars as pl

        with np.errstate(divide="ignore", invalid="ignore"):
            gross, net = self._outputs.gross / self._outputs.equity, self._outputs.net / self._outputs.equity
        frame = self._by_slot("gross", gross)
        return frame.with_columns(pl.Series("net", net), pl.Series("drawdown_level", self._outputs.level))

    @cached_property
    def trades(self) -> pl.DataFrame:
        """Ended round trips (from flat to flat, average cost: `trading.trades`), by exit time and symbol.

        symbol, side (long, short), entry_time, exit_time, entry_price, exit_price, quantity, fees, profit. Profit is
        after fees and borrow and with dividends; prices and quantity are in units after splits.
        """
        return self._trade_frame(self._ended).sort("exit_time", "symbol", "entry_time")

    @cached_property
    def open_trades(self) -> pl.DataFrame:
        """Round trips still open at the end; exit_price is null and profit is at the last mark."""
        return self._trade_frame(self._open)

    @cached_property
    def fills(self) -> pl.DataFrame:
        """time, symbol, side (buy, sell), quantity, price, fee, slippage, settled: orders that filled, at the open of
        the bar of `time`.

        `settled` marks what no order did: a symbol that is gone, closed at its last close, or the rest of a lot after
        a split.
        """
        import polars as pl

        rows = self._changes[self._changes[:, KIND] != SPLIT_RATIO]
        slots, codes = rows[:, SLOT].astype(np.int64), rows[:, SYMBOL].astype(np.int64)
        return pl.DataFrame(
            {
                "time": _times(self._axes, slots),
                "symbol": _symbols(self._axes, codes),
                "side": pl.Series(np.where(rows[:, SIDE] > 0, "buy", "sell")).cast(pl.String),
                "quantity": rows[:, QUANTITY],
                "price": rows[:, PRICE],
                "fee": rows[:, FEE],
                "slippage": rows[:, SLIP],
                "settled": rows[:, KIND] == SETTLEMENT,
            }
        )

    @cached_property
    def settlements(self) -> pl.DataFrame:
        """The rows of `fills` that no order made."""
        import polars as pl

        return self.fills.filter(pl.col("settled"))

    @cached_property
    def positions(self) -> pl.DataFrame:
        """time, symbol, quantity: what was held at each close, by symbol and time; a flat symbol has no row."""
        import polars as pl

        held = np.zeros(self._axes.shape)
        holdings(self._changes, held)
        codes, slots = np.nonzero(held.T)
        return pl.DataFrame(
            {"time": _times(self._axes, slots), "symbol": _symbols(self._axes, codes), "quantity": held[slots, codes]}
        )

    @cached_property
    def contributions(self) -> pl.DataFrame:
        """symbol, before_costs, fees, slippage, borrow, profit: what each traded symbol earned, in cash. `profit` is after
        costs and adds up to the change of equity.
        """
        import polars as pl

        profit = self._parts.profit.sum(axis=0)
        fees, slippage, borrow = self._parts.costs.T
        frame = pl.DataFrame(
            {
                "symbol": pl.Series(self._axes.symbols, dtype=pl.String),
                "before_costs": profit + fees + slippage + borrow,
                "fees": fees,
                "slippage": slippage,
                "borrow": borrow,
                "profit": profit,
            }
        )
        return frame.filter(pl.any_horizontal(pl.col(pl.Float64) != 0.0))

    @cached_property
    def profits(self) -> pl.DataFrame:
        """time, symbol, profit: cash earned by each symbol since the slot before, after costs; no row where nothing was."""
        import polars as pl

        slots, codes = np.nonzero(self._parts.profit)
        return pl.DataFrame(
            {
                "time": _times(self._axes, slots),
                "symbol": _symbols(self._axes, codes),
                "profit": self._parts.profit[slots, codes],
            }
        )

    @cached_property
    def market_returns(self) -> pl.DataFrame:
        """time, return: mean change of the closes of all symbols that have one now and one in the slot of theirs before; NaN at
        first.

        Prices as traded: a split or a dividend shows, so it is a market for bars on a total-return basis.
        """
        change = changes(self._replay.market.close, self._replay.sessions)
        known = np.isfinite(change)
        count = known.sum(axis=1)
        mean = np.where(count > 0, np.where(known, change, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
        return self._by_slot("return", mean)

    @cached_property
    def _parts(self) -> Contributions:
        return contributions(self._replay, self._changes)

    def _by_slot(self, name: str, values: Floats) -> pl.DataFrame:
        import polars as pl

        return pl.DataFrame({"time": _times(self._axes, np.arange(len(values))), name: values})

    def _change(self, after: Floats) -> pl.DataFrame:
        before = self._outputs.equity[:-1]
        change = np.full(len(before), np.nan)
        np.divide(after[1:], before, out=change, where=before > 0.0)
        return self._by_slot("return", np.concatenate(([np.nan], change - 1.0)))[1:]

    def _trade_frame(self, rows: Floats) -> pl.DataFrame:
        import polars as pl

        columns = {
            "symbol": _symbols(self._axes, rows[:, 0].astype(np.int64)),
            "side": pl.Series(np.where(rows[:, 1] > 0, "long", "short")).cast(pl.String),
            "entry_time": _times(self._axes, rows[:, 2].astype(np.int64)),
            "exit_time": _times(self._axes, rows[:, 3].astype(np.int64)),
        }
        numbers = ("entry_price", "exit_price", "quantity", "fees", "profit")
        columns |= {name: pl.Series(rows[:, 4 + at]) for at, name in enumerate(numbers)}
        return pl.DataFrame(columns).with_columns(pl.col("exit_price").fill_nan(None))


def summary(result: BacktestResult) -> dict[str, Any]:
    """What `tidemill backtest --json` answers: `final_equity`, `trades` (ended round trips), `fees` (cash),
    `max_drawdown` (negative share), `equity` (list, one number for each slot).
    """
    return {
        "final_equity": result.final_equity,
        "trades": len(result._ended),
        "fees": result.fees,
        "max_drawdown": result.max_drawdown,
        "equity": result._outputs.equity.tolist(),
    }
