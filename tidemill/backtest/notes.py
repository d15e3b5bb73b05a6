"""What a person should know about a backtest, in sentences: everything that was clipped, cancelled, settled or ignored."""

import numpy as np

from tidemill.backtest.panel import Axes
from tidemill.backtest.scan import Outputs
from tidemill.domain.limits_reached import LimitsReached
from tidemill.domain.naming import first_of
from tidemill.matching.kernel import COLLAR, NO_BAR, NO_FUNDS, NO_VOLUME, PARTLY_FILLED, TOO_SMALL
from tidemill.matching.rules import Floats
from tidemill.trading.account import DRAWDOWN, GROSS, NET, POSITION, SHORT, UNPRICED, Account, Terms
from tidemill.trading.slot import KIND, SETTLEMENT, SYMBOL


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _clip_notes(axes: Axes, account: Account, terms: Terms) -> list[str]:
    clips, limits, notes = account.clips, terms.limits, []
    if clips[SHORT]:
        names = [symbol for symbol, clipped in zip(axes.symbols, account.short_clipped, strict=True) if clipped]
        notes.append(
            f"{clips[SHORT]:,} targets below zero were clipped to zero, since these cannot be sold short: {first_of(names)}."
        )
    if clips[POSITION]:
        notes.append(
            f"{clips[POSITION]:,} targets were cut to the position limit of {_percent(limits.max_position)} of equity."
        )
    if clips[GROSS]:
        notes.append(
            f"{clips[GROSS]:,} targets were cut to stay within the gross limit of {_percent(limits.max_gross)} of equity."
        )
    if clips[NET]:
        notes.append(f"{clips[NET]:,} targets were cut to stay within the net limit of {_percent(limits.max_net)} of equity.")
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
        width = _percent(terms.rules.collar)
        notes.append(f"{count[COLLAR]:,} orders were cancelled, since they would trade over {width} off the signal's close.")
    if count[PARTLY_FILLED]:
        share = _percent(terms.rules.participation)
        notes.append(f"{count[PARTLY_FILLED]:,} orders filled in part, up to {share} of the bar's volume or the cash at hand.")
    if count[TOO_SMALL]:
        notes.append(f"{count[TOO_SMALL]:,} orders were too small for the lot or the minimum notional.")
    if count[NO_FUNDS]:
        notes.append(f"{count[NO_FUNDS]:,} buys found no cash.")
    return notes


def written_notes(
    axes: Axes, account: Account, outputs: Outputs, changes: Floats, terms: Terms, stray: int, reached: LimitsReached | None
) -> tuple[str, ...]:
    """The notes of one run, the most consequential first."""
    notes = []
    ruined = np.flatnonzero(outputs.equity <= 0.0)
    if len(ruined):
        notes.append(
            f"The account was ruined: equity fell to zero or below in slot {ruined[0] + 1:,} of {len(outputs.equity):,}."
        )
    if reached is not None and reached.levels:
        notes.append(reached.sentences()[0])
    notes += _clip_notes(axes, account, terms) + _order_notes(account, terms)
    gone = changes[changes[:, KIND] == SETTLEMENT]
    if len(gone):
        names = sorted({axes.symbols[int(code)] for code in gone[:, SYMBOL]})
        notes.append(
            f"{len(gone):,} positions were settled at the last close, since the symbol had no more bars: {first_of(names)}."
        )
    if stray:
        notes.append(f"{stray:,} weights were ignored, since no symbol has a bar at their time.")
    if terms.guarded and reached is not None and not reached.levels:
        notes.append("The drawdown policy was on; no level of it was reached.")
    return tuple(notes)
