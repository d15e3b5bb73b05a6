"""The causality proof (NUMBERS): a feature, a signal or a prediction is computed again on inputs whose future is gone or
altered, and everything up to the cut must be the same bits.

    proof = prove(my_features, bars, lookback=20)
    proof.refuted                                   # Refutation(feature, symbol, time, why) of each that looks ahead, or fails

Four ways, since each finds what the others miss:

*Cuts.* At listings, gaps, unknown cells, the most extreme bars and between bars, what follows is removed, then altered; the
whole prefix is compared.

*Comb.* Cuts miss a leak that shows on one bar in a thousand. So single bars are altered, more than the look-back apart, and
the comb is shifted until every bar was altered once: what lies before an altered bar, and beyond the look-back of the one
before it, must not change. This takes a stated look-back, and values that depend on their own symbol's bars alone.

*Windows.* Where there is no finite look-back, it is not stated, or symbols are compared with each other, time is divided into
windows that are inputs of their own, and in each of them every slot is altered in its turn: all before it must not change.
Windows overlap by `Effort.warm` slots, so that what is altered is seen by warm values.

*Living bars.* A window does not see what needs more bars than it has: there the whole history has another value than the
window has of itself, so the whole is cut at those bars. Where values do not depend on other symbols, each symbol is cut at a
time of its own.

What the comb or a cut of single symbols finds is confirmed by a cut of everything before it is told: a value that reads
further back than stated is not accused of looking ahead, but judged by windows. No difference counts that a second computation
on the same bars shows as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.validation.causality.inputs import Compute, proof_inputs
from tidemill.validation.causality.judge import Judge
from tidemill.validation.causality.proof import Effort, Proof

Say = Callable[[str], None]
FULL = Effort()


def prove(
    compute: Compute,
    bars: pl.DataFrame,
    *,
    lookback: int | None = None,
    beside: Mapping[str, pl.DataFrame] | None = None,
    interval: Interval | None = None,
    effort: Effort = FULL,
    seed: int = 7,
    say: Say | None = None,
) -> Proof:
    """Prove every column of `compute(bars, **beside)`, or say where it looks ahead.

    compute: any function from a frame of bars to symbol, open_time and one column a feature. A row is known when the bar that
    opens at its open_time closes, or later, when a column `known_at` of the answer says so.
    bars: symbol, open_time and further columns, whose numbers are altered; `known_at` where a bar was known after its close.
    lookback: own bars that a value reads, the current one included; None when it is not known or has no end.
    beside: further arguments of `compute`, frames with `known_at`; they are cut off and altered by it.
    interval: length of a bar; None takes the most frequent step. say: is told how far the proof is.

    What fails on bars that were cut is among the refuted as well, marked so. Raises InputError when `compute` fails on the bars
    as they are, or answers what is no frame of features.
    """
    if lookback is not None and lookback < 1:
        raise InputError(f"A look-back of {lookback} bars is not possible: the current bar counts as 1.")
    inputs = proof_inputs(bars, beside or {}, interval.microseconds if interval else None, seed)
    return Judge(compute, effort, say or (lambda _: None)).judge(inputs, lookback)
