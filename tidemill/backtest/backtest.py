"""The public backtest: raw bars and target weights in, an account over time out, through the decision kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tidemill.backtest.contributions import Replay
from tidemill.backtest.inputs import known_actions, market_of, sorted_actions, suspected_actions
from tidemill.backtest.notes import written_notes
from tidemill.backtest.panel import Panel, bars_panel, weights_panel
from tidemill.backtest.reached import limits_reached
from tidemill.backtest.result import BacktestResult
from tidemill.backtest.scan import Market, Outputs, larger, new_outputs, open_trades, scan
from tidemill.backtest.sessions import Sessions, sessions_of
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.matching.kernel import OUTCOMES
from tidemill.matching.rules import PARTICIPATION, Floats, MatchingRules, checked_rules, venue_row
from tidemill.risk.drawdown import DrawdownPolicy, DrawdownState, checked_policy
from tidemill.risk.limits import UNLEVERED, Limits, checked_limits
from tidemill.trading.account import (
    BORROW,
    CASH,
    CLIPS,
    DIVIDENDS,
    FEES,
    SLIPPAGE,
    TRADED,
    Account,
    Indices,
    Terms,
    new_account,
)
from tidemill.trading.slot import Actions, Log, new_buffers, new_log
from tidemill.trading.trades import TRADE_COLUMNS, new_book

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
    collar: float = math.inf,
    dead_after: int = DEAD_AFTER,
) -> BacktestResult:
    """Trade target weights over raw bars.

    bars: raw prices (`BAR_COLUMNS`). weights: symbol, open_time, weight: the share of equity that the symbol shall have,
    known at the close of the bar that opened at open_time. It becomes an order that fills at the next slot's open. A
    symbol without a row (or with a null) at some time keeps its position: say 0 to close it. Slots are the times at
    which any symbol has a bar. Where instruments follow calendars of their own, an order waits for its symbol's next slot,
    and a newer weight replaces it; around the clock it does not outlive a missing slot.

    adjustments: symbol, kind, ex_time, value: dividends pay cash and splits change quantities at the first slot from
    ex_time on. suspected: symbol, open_time of bars whose open follows a suspected but unknown corporate action; there
    is no profit or loss from the close before to that open, and `with_suspected` of the result is the run with it in.

    costs: those of `CostSpec()` when missing. limits: by default positions and gross exposure up to 100 % of equity.
    drawdown_policy: off by default in research, since a flatten at 2 % ends the run and would hide the signal's
    statistics; `DrawdownPolicy()` switches it on with the defaults of live trading.

    resize: False lets a target only open, close or turn a position, and never trims one. participation: share of a
    bar's volume that an order may take. reserve: share of cash that buys leave. collar: how far from the close of the signal's
    bar an order may trade, as a share of it; off by default. dead_after: slots of its own without a bar
    after which a symbol counts as gone and is settled at its last close; earlier from `Instrument.delisted_at`, and at the
    end of the data.

    Raises InputError for input that cannot be used.
    """
    panel = bars_panel(bars, interval)
    targets, stray = weights_panel(weights, panel.axes)
    options = Options(limits, drawdown_policy, resize, participation, reserve, collar, dead_after)
    inputs = BacktestInputs(panel, targets, interval, instruments, adjustments, suspected, stray)
    return backtest_panel(inputs, costs or CostSpec(), options)


class BacktestInputs(NamedTuple):
    """What `backtest` was given, with bars and weights as panels; `targets` is [slots, symbols], NaN where nothing is asked."""

    panel: Panel
    targets: Floats
    interval: Interval
    instruments: Mapping[str, Instrument]
    adjustments: pl.DataFrame | None = None
    suspected: pl.DataFrame | None = None
    stray_weights: int = 0


class Options(NamedTuple):
    """The choices of `backtest`, by the same names and with the same defaults."""

    limits: Limits = UNLEVERED
    drawdown_policy: DrawdownPolicy | None = None
    resize: bool = True
    participation: float = PARTICIPATION
    reserve: float = 0.0
    collar: float = math.inf
    dead_after: int = DEAD_AFTER


class Prepared(NamedTuple):
    """What every run over the same bars under the same terms shares. actions: `guessed` ones with the suspected among them."""

    market: Market
    sessions: Sessions | None
    known: Actions
    guessed: Actions | None
    terms: Terms
    capital: float


def backtest_panel(inputs: BacktestInputs, costs: CostSpec, options: Options) -> BacktestResult:
    """`backtest` for what is already a panel."""
    prepared = prepare(inputs, costs, options)
    beside = run_prepared(inputs, prepared._replace(guessed=None)) if prepared.guessed is not None else None
    return run_prepared(inputs, prepared, beside)


def prepare(inputs: BacktestInputs, costs: CostSpec, options: Options) -> Prepared:
    """Check everything and make the arrays of a run; `run_prepared` then goes from targets to result."""
    if not 0.0 < costs.capital < float("inf"):
        raise InputError("The capital of a backtest must be above 0.")
    terms = terms_of(inputs.panel.axes.symbols, inputs.instruments, costs, options)
    market = market_of(inputs.panel, inputs.targets, inputs.interval, inputs.instruments)
    known = known_actions(inputs.adjustments, inputs.panel.axes)
    guesses = suspected_actions(inputs.suspected, inputs.panel.axes)
    guessed = sorted_actions(known + guesses) if guesses else None
    sessions = sessions_of(inputs.panel, inputs.interval, inputs.instruments)
    return Prepared(market, sessions, sorted_actions(known), guessed, terms, costs.capital)


def terms_of(symbols: Sequence[str], instruments: Mapping[str, Instrument], costs: CostSpec, options: Options) -> Terms:
    """What does not change from slot to slot. InputError for what makes no sense."""
    if options.dead_after < 1:
        raise InputError("`dead_after` must be at least 1 slot.")
    rules = MatchingRules(costs.fee_bps / 1e4, costs.slippage_bps / 1e4, options.participation, options.reserve, options.collar)
    venue = venue_row(symbols, instruments)
    return Terms(
        venue=venue,
        rules=checked_rules(rules),
        limits=checked_limits(options.limits),
        policy=checked_policy(options.drawdown_policy or DrawdownPolicy()),
        guarded=options.drawdown_policy is not None,
        borrows=bool((venue.borrow_rate > 0.0).any()),
        resize=options.resize,
        dead_after=options.dead_after,
    )


def run_prepared(inputs: BacktestInputs, prepared: Prepared, beside: BacktestResult | None = None) -> BacktestResult:
    """One run over the targets of `inputs`; `beside` becomes its `with_suspected`."""
    axes, terms, capital = inputs.panel.axes, prepared.terms, prepared.capital
    market = prepared.market._replace(target=inputs.targets)
    actions = prepared.known if prepared.guessed is None else prepared.guessed
    slots, symbols = axes.shape
    account, book, outputs = new_account(symbols, capital), new_book(symbols), new_outputs(slots)
    log = _scanned(market, prepared.sessions, actions, terms, account, book, outputs)
    totals = account.totals
    changes = log.changes[: log.used[0]]
    still_open = np.empty((symbols, TRADE_COLUMNS))
    open_count = open_trades(account, book, slots - 1, still_open)
    reached = limits_reached(axes, account, outputs, terms)
    return BacktestResult(
        capital=capital,
        fees=float(totals[FEES]),
        slippage=float(totals[SLIPPAGE]),
        borrow=float(totals[BORROW]),
        dividends=float(totals[DIVIDENDS]),
        traded=float(totals[TRADED]),
        years=((int(axes.times[-1]) - int(axes.times[0])) / 1e6 + inputs.interval.seconds) / _SECONDS_A_YEAR,
        orders=_counts(OUTCOMES, account.outcomes),
        clips=_counts(CLIPS, account.clips),
        limits=reached,
        notes=written_notes(axes, account, outputs, changes, terms, inputs.stray_weights, reached),
        with_suspected=beside,
        _axes=axes,
        _outputs=outputs,
        _changes=changes,
        _ended=log.trades[: log.used[1]],
        _open=still_open[:open_count],
        _replay=Replay(market, prepared.sessions, actions, terms.venue),
    )


def _scanned(
    market: Market, sessions: Sessions | None, actions: Actions, terms: Terms, account: Account, book: Floats, outputs: Outputs
) -> Log:
    """Scan to the end; the log grows whenever the scan stops for want of room."""
    slots, symbols = market.open.shape
    # Pages that are never written cost nothing, so there is room for many changes from the start.
    log, slot = new_log(32_768 + 4 * (symbols + len(actions.slot))), 0
    state, buffers = DrawdownState(float(account.totals[CASH])), new_buffers(symbols)
    while True:
        slot, state = scan(slot, market, sessions, actions, terms, account, book, state, buffers, outputs, log)
        if slot == slots:
            return log
        log = larger(log)


def _counts(names: Sequence[str], values: Indices) -> dict[str, int]:
    return {name: int(value) for name, value in zip(names, values, strict=True)}


__all__ = [
    "DEAD_AFTER",
    "BacktestInputs",
    "BacktestResult",
    "Options",
    "Prepared",
    "backtest",
    "backtest_panel",
    "prepare",
    "run_prepared",
]
