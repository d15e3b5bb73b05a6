"""A slow simulator in plain Python, written from the rules (NUMBERS, Fills and accounts) and not from the kernel."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import polars as pl

from tests.backtest.panels import Market
from tidemill.domain.market import Instrument
from tidemill.risk.limits import UNLEVERED, Limits

YEAR = 365.0 * 86_400.0


class Days(NamedTuple):
    """own(symbol, time): whether it is a slot of the symbol. after(symbol, time): its next slot, None where there is none."""

    own: Callable[[str, datetime], bool]
    after: Callable[[str, datetime], datetime | None]


@dataclass
class Account:
    cash: float
    units: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    fees: float = 0.0
    slippage: float = 0.0
    borrow: float = 0.0
    dividends: float = 0.0
    decided: dict[str, float] = field(default_factory=dict)  # symbol → the close at which its order was decided
    held_back: dict[str, int] = field(default_factory=dict)  # symbol → how often its reduction was cancelled at the collar
    collared: int = 0

    def equity(self) -> float:
        return self.cash + sum(units * self.last[symbol] for symbol, units in self.units.items() if units)


def lots(quantity: float, lot: float) -> float:
    return quantity if lot == 0 else math.floor(quantity / lot + 1e-9) * lot


def on_tick(price: float, tick: float, buy: bool) -> float:
    if tick == 0:
        return price
    return math.ceil(price / tick - 1e-9) * tick if buy else max(math.floor(price / tick + 1e-9), 1) * tick


def every(times: list[datetime]) -> Days:
    """Every slot is everybody's."""
    after = dict(pairwise(times))
    return Days(lambda _, time: time in times, lambda _, time: after.get(time))


def simulate(
    market: Market,
    *,
    dead_after: int,
    resize: bool = True,
    limits: Limits = UNLEVERED,
    collar: float = math.inf,
    days: Days | None = None,
) -> tuple[list[float], Account]:
    """Equity at each close, and the account at the end."""
    table = {(row["symbol"], row["open_time"]): row for row in market.bars.iter_rows(named=True)}
    asked = {(row["symbol"], row["open_time"]): row["weight"] for row in market.weights.iter_rows(named=True)}
    times = sorted({time for _, time in table})
    account = Account(market.costs.capital)
    days = days or every(times)
    waiting: dict[str, tuple[float, float]] = {}  # symbol → units (signed, covers and sells), cash to spend
    due: dict[str, datetime | None] = {}
    equities = []
    for slot, time in enumerate(times):
        elapsed = (time - times[slot - 1]).total_seconds() if slot else 0.0
        _borrow(account, market, elapsed)
        since = times[slot - 1] if slot else None
        _actions(account, market.actions, waiting, market.instruments, since, time)
        waiting = {symbol: order for symbol, order in waiting.items() if due[symbol] is None or due[symbol] >= time}
        now = {symbol: order for symbol, order in waiting.items() if due[symbol] == time}
        rows = {symbol: table.get((symbol, time)) for symbol in market.symbols}
        _fill(account, market, rows, _within(account, market, rows, now, collar))
        waiting = {symbol: order for symbol, order in waiting.items() if symbol not in now}
        for symbol in market.symbols:
            row = table.get((symbol, time))
            if row is not None:
                account.last[symbol], account.absent[symbol] = row["close"], 0
                continue
            account.absent[symbol] = account.absent.get(symbol, 0) + days.own(symbol, time)
            last = slot == len(times) - 1 and account.absent[symbol] > 0
            if account.units.get(symbol) and (account.absent[symbol] >= dead_after or last):
                account.cash += account.units.pop(symbol) * account.last[symbol]
                waiting.pop(symbol, None)
        equities.append(account.equity())
        targets = {symbol: asked.get((symbol, time)) for symbol in market.symbols}
        waiting = {symbol: order for symbol, order in waiting.items() if targets[symbol] is None}
        made = _decide(account, market, targets, equities[-1], resize, limits, waiting)
        due |= {symbol: days.after(symbol, time) for symbol in made}
        account.decided |= {symbol: account.last[symbol] for symbol in made}
        waiting |= made
    return equities, account


def _borrow(account: Account, market: Market, elapsed: float) -> None:
    for symbol, units in account.units.items():
        if units < 0:
            due = -units * account.last[symbol] * market.instruments[symbol].borrow_bps / 1e4 * elapsed / YEAR
            account.cash -= due
            account.borrow += due


def _actions(
    account: Account,
    corporate: pl.DataFrame,
    waiting: dict[str, tuple[float, float]],
    instruments: dict[str, Instrument],
    since: object,
    time: object,
) -> None:
    due = [
        row for row in corporate.iter_rows(named=True) if row["ex_time"] <= time and (since is None or row["ex_time"] > since)
    ]
    for row in sorted(due, key=lambda row: row["kind"]):  # a dividend is paid on the shares before the split
        symbol, value = row["symbol"], row["value"]
        if symbol not in account.last:
            continue
        units = account.units.get(symbol, 0.0)
        if row["kind"] == "dividend":
            account.cash += units * value
            account.dividends += units * value
            account.last[symbol] -= value
            account.decided[symbol] = account.decided.get(symbol, 0.0) - value
            continue
        account.last[symbol] /= value
        account.decided[symbol] = account.decided.get(symbol, 0.0) / value
        units *= value
        if symbol in waiting:
            waiting[symbol] = (waiting[symbol][0] * value, waiting[symbol][1])
        rest = abs(units) - lots(abs(units), instruments[symbol].lot)
        if instruments[symbol].lot and rest > 1e-9 * abs(units):
            account.cash += math.copysign(rest, units) * account.last[symbol]
            units -= math.copysign(rest, units)
        account.units[symbol] = units


def _fill(
    account: Account, market: Market, rows: dict[str, dict[str, float] | None], waiting: dict[str, tuple[float, float]]
) -> None:
    for buying in (False, True):
        if buying:
            budget = account.cash
        for symbol in sorted(waiting):
            units, amount = waiting[symbol]
            row = rows[symbol]
            if row is None or not row["volume"] > 0 or (units >= 0) != buying:
                continue
            rules = market.instruments[symbol]
            fee = market.costs.fee_bps / 1e4
            price = _price(market, symbol, row["open"], buying)
            if buying:
                each = price * (1 + fee)
                wanted = units + max(min(amount, budget - units * each), 0.0) / each
            else:
                wanted = -units if rules.can_short else min(-units, max(account.units.get(symbol, 0.0), 0.0))
            quantity = lots(min(wanted, 0.1 * row["volume"]), rules.lot)
            if quantity <= 0 or quantity * price < rules.min_notional:
                continue
            sign = 1 if buying else -1
            account.cash -= sign * quantity * price + quantity * price * fee
            account.fees += quantity * price * fee
            account.slippage += quantity * abs(price - row["open"])
            held = account.units.get(symbol, 0.0) + sign * quantity
            account.units[symbol] = 0.0 if abs(held) <= 1e-12 * quantity else held
            account.held_back[symbol] = 0
            if buying:
                budget -= quantity * price * (1 + fee)


def _price(market: Market, symbol: str, opened: float, buying: bool) -> float:
    slip = market.costs.slippage_bps / 1e4
    return on_tick(opened * (1 + slip if buying else 1 - slip), market.instruments[symbol].tick, buying)


def _within(
    account: Account,
    market: Market,
    rows: dict[str, dict[str, float] | None],
    waiting: dict[str, tuple[float, float]],
    collar: float,
) -> dict[str, tuple[float, float]]:
    """What the collar lets through of the orders of one slot."""
    passed = {}
    for symbol, (units, amount) in waiting.items():
        row, held, buying = rows[symbol], account.units.get(symbol, 0.0), units >= 0
        closes = min(abs(units), abs(held)) if units * held < 0 else 0.0
        if not closes:
            account.held_back[symbol] = 0
        if row is None or not row["volume"] > 0:
            passed[symbol] = (units, amount)
            continue
        price, before = _price(market, symbol, row["open"], buying), account.held_back.get(symbol, 0)
        width = (price / account.decided[symbol] - 1) * (1 if buying else -1)
        if width <= collar:
            passed[symbol] = (units, amount)
        elif closes and width <= collar * min(2**before, 4):
            passed[symbol] = (closes if buying else -closes, 0.0)
            account.collared += amount > 0 or abs(units) > closes * (1 + 1e-12)
        else:
            account.held_back[symbol] = before + 1 if closes else 0
            account.collared += 1
    return passed


def _promised(account: Account, symbol: str, order: tuple[float, float]) -> float:
    """Exposure in cash that an order adds which waits on."""
    short = max(-order[0] - max(account.units.get(symbol, 0.0), 0.0), 0.0)
    return order[1] + short * account.last[symbol]


def _decide(
    account: Account,
    market: Market,
    targets: dict[str, float | None],
    equity: float,
    resize: bool,
    limits: Limits,
    waiting: dict[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    now = {symbol: account.units.get(symbol, 0.0) * account.last.get(symbol, 0.0) for symbol in market.symbols}
    wanted = {}
    for symbol, weight in targets.items():
        same = weight is not None and ((weight > 0) - (weight < 0)) == ((now[symbol] > 0) - (now[symbol] < 0))
        if weight is None or symbol not in account.last or (weight == 0 and now[symbol] == 0) or (not resize and same):
            continue
        if weight < 0 and not market.instruments[symbol].can_short:
            weight = 0.0
        limit = limits.max_position * max(equity, 0.0)
        wanted[symbol] = min(max(weight * max(equity, 0.0), -limit), limit)
    stays = {symbol: _stays(now[symbol], wanted.get(symbol, now[symbol])) for symbol in market.symbols}
    scale = _scale(account, equity, limits, waiting, stays, wanted)
    orders = {}
    for symbol, value in wanted.items():
        more = value - stays[symbol]
        target = stays[symbol] + more * scale[more > 0] if scale[more > 0] < 1 else value
        order = _order(target, account.units.get(symbol, 0.0), now[symbol], account.last[symbol], equity)
        if order != (0.0, 0.0):
            orders[symbol] = order
    return orders


def _scale(
    account: Account,
    equity: float,
    limits: Limits,
    waiting: dict[str, tuple[float, float]],
    stays: dict[str, float],
    wanted: dict[str, float],
) -> dict[bool, float]:
    """Whether exposure is added to the long side → by which factor it shrinks."""
    promised = sum(_promised(account, symbol, order) for symbol, order in waiting.items())
    added = sum(abs(value - stays[symbol]) for symbol, value in wanted.items())
    held = sum(abs(value) for value in stays.values())
    gross = _shrunk(added, limits.max_gross * equity - promised - held, equity)
    net = sum(stays.values()) + sum(units * account.last[symbol] + amount for symbol, (units, amount) in waiting.items())
    long = gross * sum(max(value - stays[symbol], 0.0) for symbol, value in wanted.items())
    short = gross * sum(max(stays[symbol] - value, 0.0) for symbol, value in wanted.items())
    most = limits.max_net * equity
    return {True: gross * _shrunk(long, most - net + short, equity), False: gross * _shrunk(short, most + net + long, equity)}


def _shrunk(added: float, room: float, equity: float) -> float:
    return 1.0 if added <= max(room + 1e-9 * equity, 0.0) else max(room, 0.0) / added


def _stays(now: float, target: float) -> float:
    return 0.0 if now * target <= 0 else min(now, target, key=abs)


def _order(target: float, units: float, now: float, price: float, equity: float) -> tuple[float, float]:
    if target == 0:
        return -units, 0.0
    if abs(target - now) <= 1e-9 * abs(equity):
        return 0.0, 0.0
    if target < now:
        return (target - now) / price, 0.0
    if units < 0:
        return min((target - now) / price, -units), max(target, 0.0)
    return 0.0, target - now
