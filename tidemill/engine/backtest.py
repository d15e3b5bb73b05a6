"""The public backtest: raw bars and target weights in, an account over time out, through the decision kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import EPOCH, Interval
from tidemill.domain.market import AdjustmentKind, Calendar, Instrument
from tidemill.engine.kernel import BORROW, CASH, CLIPS, DIVIDENDS, FEES, SLIPPAGE, TRADED, Account, Indices, Terms, new_account
from tidemill.engine.notes import written_notes
from tidemill.engine.panel import Axes, Panel, bars_panel, microseconds, require_columns, weights_panel
from tidemill.engine.result import BacktestResult
from tidemill.engine.scan import (
    DIVIDEND_ACTION,
    SPLIT_ACTION,
    SUSPECTED_ACTION,
    Actions,
    Log,
    Market,
    Outputs,
    larger,
    new_log,
    new_outputs,
    open_trades,
    scan,
)
from tidemill.engine.trades import TRADE_COLUMNS, Book, new_book
from tidemill.matching.kernel import OUTCOMES, fill_buffers
from tidemill.matching.rules import PARTICIPATION, Floats, MatchingRules, checked_rules, venue_row
from tidemill.risk.drawdown import DrawdownPolicy, DrawdownState, checked_policy
from tidemill.risk.limits import UNLEVERED, Limits, checked_limits

if TYPE_CHECKING:
    import polars as pl

DEAD_AFTER = 20
_SECONDS_A_YEAR = 365.25 * 86_400.0


def backtest(
    bars: pl.DataFrame,
    weights: pl.DataFrame,
    *,
    interval: Interval,
    instruments: Mapping[str, Instrument],
    adjustments: pl.DataFrame | None = None,
    costs: CostSpec | None = None,
    suspected: pl.DataFrame | None = None,
    limits: Limits = UNLEVERED,
    drawdown_policy: DrawdownPolicy | None = None,
    resize: bool = True,
    participation: float = PARTICIPATION,
    reserve: float = 0.0,
    dead_after: int = DEAD_AFTER,
) -> BacktestResult:
    """Trade target weights over raw bars.

    bars: raw prices (`BAR_COLUMNS`). weights: symbol, open_time, weight: the share of equity that the symbol shall have,
    known at the close of the bar that opened at open_time. It becomes an order that fills at the next slot's open. A
    symbol without a row (or with a null) at some time keeps its position: say 0 to close it. Slots are the times at
    which any symbol has a bar; where all instruments trade around the clock, an order does not outlive a missing slot.

    adjustments: symbol, kind, ex_time, value: dividends pay cash and splits change quantities at the first slot from
    ex_time on. suspected: symbol, open_time of bars whose open follows a suspected but unknown corporate action; there
    is no profit or loss from the close before to that open, and `with_suspected` of the result is the run with it in.

    costs: those of `CostSpec()` when missing. limits: by default positions and gross exposure up to 100 % of equity.
    drawdown_policy: off by default in research, since a flatten at 2 % ends the run and would hide the signal's
    statistics; `DrawdownPolicy()` switches it on with the defaults of live trading.

    resize: False lets a target only open, close or turn a position, and never trims one. participation: share of a
    bar's volume that an order may take. reserve: share of cash that buys leave. dead_after: slots without a bar after
    which a symbol counts as gone and is settled at its last close; earlier from `Instrument.delisted_at`, and at the
    end of the data.

    Raises InputError for input that cannot be used.
    """
    panel = bars_panel(bars, interval)
    targets, stray = weights_panel(weights, panel.axes)
    return backtest_panel(
        panel,
        targets,
        interval=interval,
        instruments=instruments,
        adjustments=adjustments,
        costs=costs,
        suspected=suspected,
        limits=limits,
        drawdown_policy=drawdown_policy,
        resize=resize,
        participation=participation,
        reserve=reserve,
        dead_after=dead_after,
        stray_weights=stray,
    )


def backtest_panel(
    panel: Panel,
    targets: Floats,
    *,
    interval: Interval,
    instruments: Mapping[str, Instrument],
    adjustments: pl.DataFrame | None = None,
    costs: CostSpec | None = None,
    suspected: pl.DataFrame | None = None,
    limits: Limits = UNLEVERED,
    drawdown_policy: DrawdownPolicy | None = None,
    resize: bool = True,
    participation: float = PARTICIPATION,
    reserve: float = 0.0,
    dead_after: int = DEAD_AFTER,
    stray_weights: int = 0,
) -> BacktestResult:
    """`backtest` for what is already a panel: `targets` is float64 [slots, symbols], NaN where nothing is asked."""
    charged = costs or CostSpec()
    if not 0.0 < charged.capital < float("inf"):
        raise InputError("The capital of a backtest must be above 0.")
    if dead_after < 1:
        raise InputError("`dead_after` must be at least 1 slot.")
    terms = Terms(
        venue=venue_row(panel.axes.symbols, instruments),
        rules=checked_rules(MatchingRules(charged.fee_bps / 1e4, charged.slippage_bps / 1e4, participation, reserve)),
        limits=checked_limits(limits),
        policy=checked_policy(drawdown_policy or DrawdownPolicy()),
        guarded=drawdown_policy is not None,
        resize=resize,
        dead_after=dead_after,
    )
    market = _market(panel, targets, interval, instruments)
    known = _actions(adjustments, panel.axes)
    guesses = _suspected_actions(suspected, panel.axes)
    beside = (
        _run(panel.axes, market, _sorted(known), terms, charged.capital, interval, stray_weights, None) if guesses else None
    )
    return _run(panel.axes, market, _sorted(known + guesses), terms, charged.capital, interval, stray_weights, beside)


def _run(
    axes: Axes,
    market: Market,
    actions: Actions,
    terms: Terms,
    capital: float,
    interval: Interval,
    stray: int,
    beside: BacktestResult | None,
) -> BacktestResult:
    slots, symbols = axes.shape
    account, book, outputs = new_account(symbols, capital), new_book(symbols), new_outputs(slots)
    log = _scanned(market, actions, terms, account, book, outputs)
    totals = account.totals
    changes = log.changes[: log.used[0]]
    still_open = np.empty((symbols, TRADE_COLUMNS))
    open_count = open_trades(account, book, slots - 1, still_open)
    return BacktestResult(
        capital=capital,
        fees=float(totals[FEES]),
        slippage=float(totals[SLIPPAGE]),
        borrow=float(totals[BORROW]),
        dividends=float(totals[DIVIDENDS]),
        traded=float(totals[TRADED]),
        years=((int(axes.times[-1]) - int(axes.times[0])) / 1e6 + interval.seconds) / _SECONDS_A_YEAR,
        orders=_counts(OUTCOMES, account.outcomes),
        clips=_counts(CLIPS, account.clips),
        notes=written_notes(axes, account, outputs, changes, terms, stray),
        with_suspected=beside,
        _axes=axes,
        _outputs=outputs,
        _changes=changes,
        _ended=log.trades[: log.used[1]],
        _open=still_open[:open_count],
    )


def _scanned(market: Market, actions: Actions, terms: Terms, account: Account, book: Book, outputs: Outputs) -> Log:
    """Scan to the end; the log grows whenever the scan stops for want of room."""
    slots, symbols = market.open.shape
    log, slot = new_log(2_048 + 4 * (symbols + len(actions.slot))), 0
    state, fills, wanted = DrawdownState(float(account.totals[CASH])), fill_buffers(symbols), np.zeros(symbols)
    while True:
        slot, state = scan(slot, market, actions, terms, account, book, state, fills, wanted, outputs, log)
        if slot == slots:
            return log
        log = larger(log)


def _counts(names: Sequence[str], values: Indices) -> dict[str, int]:
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _market(panel: Panel, targets: Floats, interval: Interval, instruments: Mapping[str, Instrument]) -> Market:
    times = panel.axes.times
    step = np.diff(times, prepend=times[0])
    known = [instruments[symbol] for symbol in panel.axes.symbols if symbol in instruments]
    around_the_clock = len(known) == len(panel.axes.symbols) and all(item.calendar is Calendar.ALWAYS for item in known)
    contiguous = (step <= interval.microseconds) if around_the_clock else np.ones(len(times), dtype=np.bool_)
    return Market(panel.open, panel.close, panel.volume, targets, step / 1e6, contiguous, _delisted(panel.axes, instruments))


def _delisted(axes: Axes, instruments: Mapping[str, Instrument]) -> Indices:
    """Slot from which each symbol is known to be gone; past the end where it is not."""
    slots = np.full(len(axes.symbols), len(axes.times), dtype=np.int64)
    for at, symbol in enumerate(axes.symbols):
        gone = instruments[symbol].delisted_at if symbol in instruments else None
        if gone is not None:
            slots[at] = np.searchsorted(axes.times, _micros(gone))
    return slots


def _micros(moment: datetime) -> int:
    return round((moment - EPOCH).total_seconds() * 1e6)


Action = tuple[int, int, int, float]  # slot, symbol, kind, value


def _actions(adjustments: pl.DataFrame | None, axes: Axes) -> list[Action]:
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


def _suspected_actions(suspected: pl.DataFrame | None, axes: Axes) -> list[Action]:
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


def _sorted(actions: list[Action]) -> Actions:
    ordered = sorted(set(actions))
    columns = list(zip(*ordered, strict=True)) if ordered else [(), (), (), ()]
    slot, symbol, kind = (np.array(column, dtype=np.int64) for column in columns[:3])
    return Actions(slot, symbol, kind, np.array(columns[3], dtype=np.float64))


__all__ = ["DEAD_AFTER", "Account", "BacktestResult", "backtest", "backtest_panel"]
