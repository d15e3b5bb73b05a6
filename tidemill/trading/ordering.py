"""The last link of the chain: what a row of weights makes of an account. Its batch is the backtest, which scans its step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import StopError
from tidemill.domain.market import AdjustmentKind
from tidemill.market.adjusting import ToldAction
from tidemill.matching.rules import Floats
from tidemill.risk.drawdown import DrawdownState
from tidemill.trading.account import Account, Indices, Terms, new_account
from tidemill.trading.addresses import addressed
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.ordering_kernel import order_slot, stated_terms
from tidemill.trading.slot import DIVIDEND_ACTION, SPLIT_ACTION, Actions, new_buffers, new_log
from tidemill.trading.trades import new_book

_KINDS = {AdjustmentKind.DIVIDEND.value: DIVIDEND_ACTION, AdjustmentKind.SPLIT.value: SPLIT_ACTION}
_BY_SYMBOL = (
    "position",
    "mark",
    "seen",
    "order_quantity",
    "order_amount",
    "due",
    "collar",
    "short_clipped",
    "carry",
    "own_seen",
)
_MICROSECONDS = 1e6


class Desk(NamedTuple):
    """Under what an account trades. delisted: [symbols] when each is known to be gone, epoch microseconds."""

    terms: Terms
    capital: float
    delisted: Indices


class Traded(NamedTuple):
    """What a slot came to in an account, in its cash. level: of the drawdown, in force.

    quantity, amount: [symbols] what waits for the next open (`matching.kernel`). changes, trades: rows of `slot.Log`.
    """

    equity: float
    gross: float
    net: float
    costs: float
    level: int
    quantity: Floats
    amount: Floats
    changes: Floats
    trades: Floats


class AccountState(NamedTuple):
    """What an account goes on from. slots: how many it has seen; ordinal: [symbols] how many of its own calendar.

    opened, first: epoch microseconds of the last slot and of the first. waiting: actions told, whose ex time is to come.
    """

    symbols: tuple[str, ...]
    account: Account
    book: Floats
    drawdown: DrawdownState
    ordinal: Indices
    slots: int
    opened: int
    first: int
    waiting: tuple[ToldAction, ...]


class Ordering:
    """An account over `symbols`, from `state` on; without one it holds the capital of `desk` and nothing else.

    StopError where the state holds something that `symbols` do not name.
    """

    def __init__(self, symbols: Sequence[str], desk: Desk, state: AccountState | None = None) -> None:
        self._symbols, self._place = tuple(symbols), {symbol: at for at, symbol in enumerate(symbols)}
        begun = _begun(self._symbols, desk.capital) if state is None else _taken_up(self._symbols, state)
        self._account, self._book, self._ordinal = begun.account, begun.book, begun.ordinal
        self._slots, self._opened, self._first = begun.slots, begun.opened, begun.first
        self._waiting = list(begun.waiting)
        self._drawdown, self._marked = np.array(begun.drawdown, dtype=np.float64), np.zeros(7)
        self._due, self._buffers = np.zeros(len(symbols), np.int64), new_buffers(len(symbols))
        self._group = np.arange(len(symbols))
        self._desk = desk
        self._bind(_no_actions())

    def trade_under(self, terms: Terms) -> None:
        """From the next slot on; what is held and what waits goes on."""
        self._desk = self._desk._replace(terms=terms)
        self._bind(_no_actions())

    def tell(self, actions: Sequence[ToldAction]) -> None:
        """Corporate actions as they become known."""
        if actions:
            self._waiting.extend(action for action in actions if action.symbol in self._place)

    def step(self, bars: BarsOfSlot, opened: int, closes: int, weights: Floats) -> Traded:
        """One slot: what was decided before it fills at its open, and `weights` become what fills at the next one.

        opened, closes: of the slot, epoch microseconds. Arrays of the answer are its own until the next step.
        """
        numbers = self.begin(bars, opened, closes)
        order_slot(self.table, bars.rows, weights, *numbers)
        return self.end(opened)

    def begin(self, bars: BarsOfSlot, opened: int, closes: int) -> tuple[int, int, int, float, bool, bool]:
        """What `order_slot` takes of a slot after its weights."""
        if not self._slots:
            self._first = self._opened = opened
        if self._waiting and any(action.ex_time <= opened for action in self._waiting):
            self._bind(self._actions(opened))
        if bars.due is not None:
            self._due[:], self._ordinal[bars.own] = bars.due, self._ordinal[bars.own] + 1
        elapsed = (opened - self._opened) / _MICROSECONDS
        return self._slots, opened, closes, elapsed, bars.contiguous, bars.due is not None

    def end(self, opened: int) -> Traded:
        """What `order_slot` made of it."""
        self._slots, self._opened = self._slots + 1, opened
        return self._answer()

    def state(self) -> AccountState:
        """After the last step."""
        high_water, action, calm, cap = self._drawdown.tolist()
        return AccountState(
            self._symbols,
            Account._make(array.copy() for array in self._account),
            self._book.copy(),
            DrawdownState(high_water, int(action), int(calm), cap),
            self._ordinal.copy(),
            self._slots,
            self._opened,
            self._first,
            tuple(self._waiting),
        )

    def _answer(self) -> Traded:
        equity, gross, net, costs, level, ended, closed = self._marked.tolist()
        waiting, log = self._account, self._log
        return Traded(
            equity, gross, net, costs, int(level), waiting.order_quantity, waiting.order_amount,
            log.changes[: int(ended)] if ended else self._none_ended,
            log.trades[: int(closed)] if closed else self._none_closed,
        )  # fmt: skip

    def _actions(self, opened: int) -> Actions:
        """Those that count at this slot; what went ex before the account began moved nothing in it."""
        due = {action for action in self._waiting if action.ex_time <= opened}
        self._waiting = [action for action in self._waiting if action.ex_time > opened]
        rows = sorted({(self._place[a.symbol], _KINDS[a.kind], a.value) for a in due if a.ex_time >= self._first})
        symbol, kind, value = zip(*rows, strict=True) if rows else ((), (), ())
        slots = np.full(len(rows), self._slots, np.int64)
        return Actions(slots, np.array(symbol, np.int64), np.array(kind, np.int64), np.array(value, np.float64))

    def _bind(self, actions: Actions) -> None:
        """Make the table of all that a step works on. Its arrays live as long as it does."""
        count = len(self._symbols)
        self._log = new_log(2 * (count + len(actions.slot)) + 2 * count)
        self._none_ended, self._none_closed = self._log.changes[:0], self._log.trades[:0]
        self._arrays: tuple[NDArray[Any], ...] = (
            *self._account, *self._desk.terms.venue, *actions, *self._log,
            np.array(stated_terms(self._desk.terms)), self._drawdown, self._marked, self._book, self._desk.delisted,
            self._due, self._ordinal, self._group, self._buffers.fills, self._buffers.wanted, *self._buffers.apart,
        )  # fmt: skip
        self.table = addressed(self._arrays)


def _no_actions() -> Actions:
    return Actions(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _begun(symbols: tuple[str, ...], capital: float) -> AccountState:
    count = len(symbols)
    return AccountState(
        symbols, new_account(count, capital), new_book(count), DrawdownState(capital), np.zeros(count, np.int64), 0, 0, 0, ()
    )


def _taken_up(symbols: tuple[str, ...], state: AccountState) -> AccountState:
    """`state` for other symbols, by name."""
    place = {symbol: at for at, symbol in enumerate(symbols)}
    lost = [name for name, held in zip(state.symbols, state.account.position, strict=True) if held and name not in place]
    if lost:
        raise StopError(f"The account holds {', '.join(lost)}, of which its universe knows nothing. Close the position first.")
    known = [at for at, symbol in enumerate(state.symbols) if symbol in place]
    into = [place[state.symbols[at]] for at in known]
    made = _begun(symbols, 0.0)
    account = made.account._replace(totals=state.account.totals.copy(), outcomes=state.account.outcomes.copy())
    account.clips[:] = state.account.clips
    for name in _BY_SYMBOL:
        getattr(account, name)[into] = getattr(state.account, name)[known]
    waiting = np.flatnonzero((account.order_quantity != 0.0) | (account.order_amount > 0.0))
    account.orders[: len(waiting)], account.waiting[0] = waiting, len(waiting)
    made.book[into], made.ordinal[into] = state.book[known], state.ordinal[known]
    waiting_actions = tuple(action for action in state.waiting if action.symbol in place)
    return state._replace(symbols=symbols, account=account, book=made.book, ordinal=made.ordinal, waiting=waiting_actions)
