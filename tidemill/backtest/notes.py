"""What a person should know about a backtest, in sentences: everything that was clipped, cancelled, settled or ignored."""

import numpy as np

from tidemill.backtest.panel import Axes
from tidemill.backtest.scan import Outputs
from tidemill.domain.naming import first_of
from tidemill.matching.kernel import COLLAR, NO_BAR, NO_FUNDS, NO_VOLUME, PARTLY_FILLED, TOO_SMALL
from tidemill.matching.rules import Floats
from tidemill.risk.drawdown import ACTIONS
from tidemill.trading.account import DRAWDOWN, GROSS, NET, POSITION, SHORT, UNPRICED, Account, Terms
from tidemill.trading.slot import KIND, SETTLEMENT, SYMBOL


def _clip_notes(axes: Axes, account: Account, terms: Terms) -> list[str]:
    clips, limits, notes = account.clips, terms.limits, []
    if clips[SHORT]:
        names = [symbol for symbol, clipped in zip(axes.symbols, account.short_clipped, strict=True) if clipped]
        notes.append(
            f"{clips[SHORT]:,} targets below zero were clipped to zero, since these cannot be sold short: {first_of(names)}."
        )
    if clips[POSITION]:
        notes.append(f"{clips[POSITION]:,} targets were cut to the position limit of {limits.max_position:.0%} of equity.")
    if clips[GROSS]:
        notes.append(f"{clips[GROSS]:,} targets were cut to stay within the gross limit of {limits.max_gross:.0%} of equity.")
    if clips[NET]:
        notes.append(f"{clips[NET]:,} targets were cut to stay within the net limit of {limits.max_net:.0%} of equity.")
    if clips[DRAWDOWN]:
        notes.append(f"{clips[DRAWDOWN]:,} targets were held back or cut by the drawdown policy.")
    if clips[UNPRICED]:
        notes.append(f"{clips[UNPRICED]:,} targets were ignored, since the symbol had no price yet.")
    return notes


def _order_notes(account: Account, terms: Terms) -> list[str]:
    count, notes = account.outcomes, []
    if count[NO_BAR]:
        notes.append(f"{count[NO_BAR]:,} orders were cancelled, since the symbol had no bar in the next slot.")
    if count[NO_VOLUME]:
        notes.append(f"{count[NO_VOLUME]:,} orders were cancelled, since the next bar had no volume.")
    if count[COLLAR]:
        width = f"{terms.rules.collar:.0%}"
        notes.append(f"{count[COLLAR]:,} orders were cancelled, since they would trade over {width} off the signal's close.")
    if count[PARTLY_FILLED]:
        share = f"{terms.rules.participation:.0%}"
        notes.append(f"{count[PARTLY_FILLED]:,} orders filled in part, up to {share} of the bar's volume or the cash at hand.")
    if count[TOO_SMALL]:
        notes.append(f"{count[TOO_SMALL]:,} orders were too small for the lot or the minimum notional.")
    if count[NO_FUNDS]:
        notes.append(f"{count[NO_FUNDS]:,} buys found no cash.")
    return notes


def written_notes(axes: Axes, account: Account, outputs: Outputs, changes: Floats, terms: Terms, stray: int) -> tuple[str, ...]:
    """The notes of one run, the most consequential first."""
    notes = []
    ruined = np.flatnonzero(outputs.equity <= 0.0)
    if len(ruined):
        notes.append(
            f"The account was ruined: equity fell to zero or below in slot {ruined[0] + 1:,} of {len(outputs.equity):,}."
        )
    notes += _clip_notes(axes, account, terms) + _order_notes(account, terms)
    gone = changes[changes[:, KIND] == SETTLEMENT]
    if len(gone):
        names = sorted({axes.symbols[int(code)] for code in gone[:, SYMBOL]})
        notes.append(
            f"{len(gone):,} positions were settled at the last close, since the symbol had no more bars: {first_of(names)}."
        )
    if stray:
        notes.append(f"{stray:,} weights were ignored, since no symbol has a bar at their time.")
    if terms.guarded:
        reached = ACTIONS[int(outputs.level.max())]
        notes.append(f"The drawdown policy was on; the highest level that it reached is {reached!r}.")
    return tuple(notes)
