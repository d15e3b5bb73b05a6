"""What matching is told: rules of the account, and what each instrument allows, as rows over symbols."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import InputError
from tidemill.domain.market import Instrument

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

PARTICIPATION = 0.10
SECONDS_A_YEAR = 365.0 * 86_400.0


class MatchingRules(NamedTuple):
    """Rules of the account. Rates are fractions of notional, one way.

    fee_rate: commission. slippage_rate: how far worse than the open an order fills. participation: share of a bar's
    volume that one order may take. reserve: share of the cash, after the sells of the bar, that buys leave untouched. collar:
    how far from its reference an order may trade (`matching.collar`), infinite for as far as it gets.
    """

    fee_rate: float = 0.0
    slippage_rate: float = 0.0
    participation: float = PARTICIPATION
    reserve: float = 0.0
    collar: float = math.inf


class VenueRow(NamedTuple):
    """What each instrument allows; arrays of length `symbols`. `borrow_rate` is a fraction of the short notional, a year."""

    lot: Floats
    tick: Floats
    min_notional: Floats
    can_short: Flags
    borrow_rate: Floats


def checked_rules(rules: MatchingRules) -> MatchingRules:
    """`rules` unchanged if each lies where it makes sense, else InputError."""
    if not (0.0 <= rules.fee_rate < 1.0 and 0.0 <= rules.slippage_rate < 1.0):
        raise InputError("Fees and slippage must be at least 0 and below 10,000 basis points.")
    if not 0.0 < rules.participation <= 1.0:
        raise InputError("The share of a bar's volume that an order may take must be above 0 and at most 1.")
    if not 0.0 <= rules.reserve < 1.0:
        raise InputError("The cash reserve must be at least 0 and below 1.")
    if not rules.collar > 0.0:
        raise InputError("The price collar must be above 0, such as 0.05 for five percent.")
    return rules


def venue_row(symbols: Sequence[str], instruments: Mapping[str, Instrument]) -> VenueRow:
    """Rows of what the venue allows. A symbol without an instrument is long only, in any fraction: what is unknown is
    not allowed.
    """
    known = [instruments.get(symbol) for symbol in symbols]

    def row(name: str) -> Floats:
        return np.array([getattr(instrument, name) if instrument else 0.0 for instrument in known], dtype=np.float64)

    can_short = np.array([instrument is not None and instrument.can_short for instrument in known], dtype=np.bool_)
    return VenueRow(row("lot"), row("tick"), row("min_notional"), can_short, row("borrow_bps") / 10_000.0)
