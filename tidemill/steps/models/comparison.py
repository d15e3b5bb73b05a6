"""What a comparison of challenger and champion came to, in figures and in words."""

from __future__ import annotations

from datetime import datetime

import msgspec
import numpy as np

from tidemill.domain.limits_reached import LimitsReached
from tidemill.domain.numbers import finite
from tidemill.metrics.bootstrap import mean_interval
from tidemill.metrics.returns import Floats
from tidemill.metrics.suspicion import FEW_SYMBOLS, TOO_GOOD_IC, TOO_GOOD_SHARPE


class BookFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A book on the held-out bars. models: engine → id. weights: of the engines in it, empty where they are equal or alone.

    costs: in cash. limits: what they did to it. reads: data files that its modules declare. None where a figure is not defined.
    """

    engines: tuple[str, ...]
    models: dict[str, str]
    weights: dict[str, float]
    rank_ic: float | None
    sharpe: float | None
    total_return: float | None
    max_drawdown: float | None
    costs: float
    trades: int
    predictions_rejected: int
    limits: LimitsReached | None = None
    reads: tuple[str, ...] = ()


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What the held-out bars said. advantage, low: mean return per bar over the champion (or cash), and its lower bound, None
    where too few bars, or the same difference on each, give none.

    ensemble: id of the model that weighs the others. refusals: why the challenger may not be promoted however well it did.
    doubt: why its figures are too good to be taken as they are, empty where they are not; accepted: that a person does. walked:
    bar times over which it was stepped since it earned more; departure: where that said something else, if it did.
    """

    start: datetime
    end: datetime
    bars: int
    challenger: BookFigures
    champion: BookFigures | None
    advantage: float
    low: float | None
    confidence: float
    models: dict[str, str]
    weights: dict[str, float] = {}
    ensemble: str = ""
    trained_until: datetime
    refusals: tuple[str, ...] = ()
    doubt: str = ""
    accepted: bool = False
    walked: int = 0
    departure: str = ""

    @property
    def earns_more(self) -> bool:
        return self.low is not None and self.low > 0.0 and not self.refusals

    @property
    def wins(self) -> bool:
        return self.is_walked and (self.accepted or not self.doubt)

    @property
    def is_walked(self) -> bool:
        """Whether it earned more, and its steps say so too."""
        return self.earns_more and self.walked > 0 and not self.departure

    def sentence(self) -> str:
        """The outcome in words."""
        return " ".join(filter(None, (self._outcome(), reading(self.challenger.reads))))

    def _outcome(self) -> str:
        if self.refusals or self.departure:
            return f"Not promoted: {' '.join((*self.refusals, self.departure)).strip()}"
        rival = "the champion" if self.champion else "cash"
        if self.low is None:
            told = f"Not promoted: {self.advantage:+.3%} a bar over {rival} after costs, of which nothing can be said"
            return f"{told}: the bars are too few, or the difference is the same on each."
        told = f"{self.advantage:+.3%} a bar over {rival} after costs, lower bound {self.low:+.3%} at {self.confidence:.0%}"
        if not self.earns_more:
            return f"Not promoted: {told}; it must lie above zero."
        if self.wins:
            return f"Promoted: {told}.{f' {self.doubt} That was accepted.' if self.doubt else ''}"
        return (
            f"Not promoted: {told}. {self.doubt} Look for a leak first; where there is none, "
            "`tidemill champions promote --accept` promotes it as it is."
        )


def lower_bound(difference: Floats, confidence: float) -> float | None:
    """One-sided, of the mean of returns by bar; None where too few bars, or the same difference on each, give none.

    At a confidence near one half a percentile of the resampled means may lie above that of the bars; a bound does not.
    """
    low = mean_interval(difference, level=2.0 * confidence - 1.0).low
    return finite(min(low, float(np.mean(difference))))


def reading(files: tuple[str, ...]) -> str:
    """What is to be known of a book that reads declared files; empty where it reads none."""
    return f"It reads {', '.join(files)}, which nothing here can prove to have been known then." if files else ""


def doubt_of(figures: BookFigures, symbols: float) -> str:
    """Why figures are too good to be taken as they are, by the rule of the report; empty where they are not.

    symbols: of the median time. Neither few symbols nor few bars excuse a book that reads files: answers may stand in them.
    """
    told, reads = "is too good to be taken as it is.", bool(figures.reads)
    if figures.rank_ic is not None and figures.rank_ic > TOO_GOOD_IC and (reads or symbols >= FEW_SYMBOLS):
        return f"A rank IC of {figures.rank_ic:.2f} {told}"
    if figures.sharpe is not None and figures.sharpe > TOO_GOOD_SHARPE and reads:
        return f"A Sharpe ratio of {figures.sharpe:.2f} {told}"
    return ""
