"""The causality proof (NUMBERS): a feature, a signal or a prediction is computed again on inputs whose future is gone or
altered, and everything up to the cut must be the same bits.

    proof = prove(my_features, bars, lookback=20)
    proof.refuted                                   # Refutation(feature, symbol, time, why) of each that looks ahead

Three ways, since each finds what the others miss:

*Cuts.* At listings, gaps, unknown cells, the most extreme bars and between bars, what follows is removed, then altered; the
whole prefix is compared.

*Comb.* Cuts miss a leak that shows on one bar in a thousand. So single bars are altered, more than the look-back apart, and
the comb is shifted until every bar was altered once: what lies before an altered bar, and beyond the look-back of the one
before it, must not change. This takes a stated look-back, and values that depend on their own symbol's bars alone.

*Windows.* Where there is no finite look-back, it is not stated, or symbols are compared with each other, time is divided into
windows that are inputs of their own, and in each of them every slot is altered in its turn: all before it must not change.
Windows overlap by `Effort.warm` slots, so that what is altered is seen by warm values.

What the comb finds is confirmed by a cut before it is told: a value that reads further back than stated is not accused of
looking ahead, but judged by windows. No difference counts that a second computation on the same bars shows as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from tidemill.domain.errors import InputError, RetryError, TidemillError
from tidemill.domain.intervals import EPOCH, Interval
from tidemill.validation.causality.cuts import cut_times
from tidemill.validation.causality.inputs import Compute, Inputs, inputs_of
from tidemill.validation.causality.observation import Integers, Observation, differing, paired, require_unique
from tidemill.validation.causality.proof import Effort, Proof, Refutation

Say = Callable[[str], None]
FULL = Effort()
_FOREVER = int(np.iinfo(np.int64).max)


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

    Raises InputError when `compute` fails on the bars as they are, or answers what is no frame of features.
    """
    if lookback is not None and lookback < 1:
        raise InputError(f"A look-back of {lookback} bars is not possible: the current bar counts as 1.")
    inputs = inputs_of(bars, beside or {}, interval.microseconds if interval else None, seed)
    return _Judge(compute, effort, say or (lambda _: None)).judge(inputs, lookback)


class _Judge:
    """One proof under way: what is still open, and what was refuted by which value."""

    def __init__(self, compute: Compute, effort: Effort, say: Say) -> None:
        self._compute, self._effort, self._say = compute, effort, say
        self._names: tuple[str, ...] = ()
        self._open: dict[str, None] = {}
        self._refuted: dict[str, Refutation] = {}
        self._longer: set[str] = set()
        self._runs = 0

    def judge(self, inputs: Inputs, lookback: int | None) -> Proof:
        crossing: set[str] = set()
        if lookback is None or inputs.beside:
            crossing = self._judge_whole(inputs)
        else:
            parts = _parts(inputs, self._effort.batch)
            for number, part in enumerate(parts):
                self._say(f"part {number + 1} of {len(parts)}")
                crossing |= self._judge_part(part, lookback)
                if crossing:
                    self._judge_whole(inputs)
                    break
        names = self._names
        return Proof(
            proven=tuple(name for name in names if name not in self._refuted),
            refuted=tuple(self._refuted[name] for name in names if name in self._refuted),
            runs=self._runs,
            longer=tuple(name for name in names if name in self._longer and name not in self._refuted),
            cross_sectional=tuple(name for name in names if name in crossing),
        )

    def _judge_whole(self, inputs: Inputs) -> set[str]:
        """Cuts and windows of all symbols together; returns the features that depend on other symbols."""
        base = self._first(inputs)
        crossing = self._crossing(inputs, base) if not inputs.beside else set()
        self._cuts(inputs, base)
        if self._effort.every_bar:
            self._windows(inputs)
        return crossing

    def _judge_part(self, part: Inputs, lookback: int) -> set[str]:
        """Cuts and comb of some symbols, unless features depend on other symbols: these are returned."""
        base = self._first(part)
        crossing = self._crossing(part, base)
        if crossing:
            return crossing
        self._cuts(part, base)
        if self._effort.every_bar:
            unexplained = self._comb(part, base, lookback)
            if unexplained:
                self._longer |= unexplained
                self._windows(part)
        return set()

    def _first(self, inputs: Inputs) -> Observation:
        """The answer to the bars as they are; InputError when there is none, whatever the function raised."""
        self._runs += 1
        try:
            answer = inputs.answer(self._compute)
        except TidemillError:
            raise
        except Exception as exc:  # arbitrary code may raise anything; nothing can be proven of it then
            raise InputError(f"The function fails on these bars: {_words(exc)}. Correct it before it is proven.") from exc
        require_unique(answer)
        if not answer.features:
            raise InputError("The function answers no feature. Return symbol, open_time and one column a feature.")
        if not self._names:
            self._names = answer.features
        self._open = dict.fromkeys(name for name in self._names if name not in self._refuted)
        return answer

    def _answer(self, inputs: Inputs, what: str) -> Observation | None:
        """The answer to other inputs; when there is none, everything still open is refuted by that."""
        self._runs += 1
        try:
            return inputs.answer(self._compute)
        except RetryError:
            raise
        except Exception as exc:  # arbitrary code may raise anything: it could not have run at that time
            last = inputs.bars.frame.tail(1)
            symbol, time = (last["symbol"][0], last["open_time"][0]) if last.height else ("", EPOCH)
            self._refute_all(str(symbol), time, f"it fails {what}: {_words(exc)}")
            return None

    def _crossing(self, inputs: Inputs, base: Observation) -> set[str]:
        """Features whose values depend on which other symbols are there."""
        parts, crossing = _parts(inputs, max(inputs.bars.frame.height // 2, 1)), set[str]()
        for part in parts if len(parts) > 1 else []:
            self._runs += 1
            try:
                answer = part.answer(self._compute)
            except RetryError:
                raise
            except Exception:  # arbitrary code: that it fails without a symbol shows that it needs it
                return set(base.features)
            own = np.flatnonzero(base.frame["symbol"].is_in(part.bars.frame["symbol"].unique().implode()).to_numpy())
            mine = Observation(base.frame[own], base.known[own])
            pairing = paired(mine, answer, _FOREVER)
            crossing |= set(differing(mine, answer, (pairing.mine, pairing.theirs), base.features))
            if pairing.lone is not None:
                crossing |= set(base.features)
        return crossing

    def _cuts(self, inputs: Inputs, base: Observation) -> None:
        again = self._answer(inputs, "when it is computed twice")
        if again is not None:
            self._compare(base, again, _FOREVER, "a second computation on the same bars")
        for cut in cut_times(inputs, self._effort.cuts):
            if not self._open:
                return
            self._cut(inputs, base, cut)

    def _cut(self, inputs: Inputs, base: Observation, cut: int) -> None:
        """Remove, then alter, what is known after `cut`; all that is known at it must stay."""
        for made, what in ((inputs.until(cut), "removing"), (inputs.altered_after(cut), "altering")):
            answer = self._answer(made, f"on what was known at {_time(cut)}")
            if answer is not None:
                self._compare(base, answer, cut, f"{what} what became known after {_time(cut)}")

    def _compare(self, base: Observation, answer: Observation, until: int, what: str) -> None:
        pairing = paired(base, answer, until)
        if pairing.lone is not None:
            self._refute_all(*pairing.lone, f"the row itself comes or goes with {what}")
        for name, found in differing(base, answer, (pairing.mine, pairing.theirs), tuple(self._open)).items():
            self._refute(name, *base.row(int(pairing.mine[found])), f"its value changes with {what}")

    def _comb(self, part: Inputs, base: Observation, lookback: int) -> set[str]:
        """Alter every bar once. Returns features that changed where no cut changes them: they read further back than stated."""
        spacing = lookback + self._effort.reach
        own, unexplained = _own_positions(part, base), set[str]()
        for offset in range(min(spacing, int(part.positions.max(initial=0)) + 1)):
            wanted = [name for name in self._open if name not in unexplained]
            answer = self._answer(part.altered_bars(part.positions % spacing == offset), "when single bars are altered")
            if answer is None or not wanted:
                break
            rows = np.flatnonzero((own >= 0) & ((own < offset) | ((own - offset) % spacing >= lookback)))
            suspects = _suspects(base, answer, rows, wanted)
            for name, row in suspects.items():
                if name in self._open:
                    self._cut(part, base, int(base.known[row]))
                if name in self._open:
                    unexplained.add(name)
        return unexplained

    def _windows(self, inputs: Inputs) -> None:
        """Alter every slot once, in windows that are inputs of their own."""
        slots, warm, span = inputs.slots, self._effort.warm, self._effort.span
        for start in range(0, len(slots), span):
            self._say(f"bar {start} of {len(slots)}")
            last = min(start + span, len(slots))
            window = inputs.between(int(slots[max(start - warm, 0)]), int(slots[last - 1]))
            base = self._answer(window, f"on the bars from {_time(int(slots[max(start - warm, 0)]))} on alone")
            for at in range(max(start, 1), last):
                if base is None or not self._open:
                    return
                before, here = int(slots[at - 1]), int(slots[at])
                answer = self._answer(window.altered_within(before, here), "when single bars are altered")
                if answer is not None:
                    self._compare(base, answer, before, f"altering what became known at {_time(here)}")

    def _refute_all(self, symbol: str, time: object, why: str) -> None:
        for name in tuple(self._open):
            self._refute(name, symbol, time, why)

    def _refute(self, name: str, symbol: str, time: object, why: str) -> None:
        moment = time if isinstance(time, datetime) else EPOCH
        self._refuted[name] = Refutation(name, symbol, moment.replace(tzinfo=moment.tzinfo or UTC), why)
        self._open.pop(name, None)


def _parts(inputs: Inputs, rows: int) -> list[Inputs]:
    """The symbols in parts of at least `rows` bars each, the last one excepted."""
    parts, first = [], 0
    for last in inputs.bounds[1:]:
        if last - first >= rows or last == inputs.bounds[-1]:
            parts.append(inputs.of_rows(first, int(last)))
            first = int(last)
    return parts


def _own_positions(part: Inputs, base: Observation) -> Integers:
    """Number among its symbol's bars of each row of an answer; -1 for a row that belongs to no bar."""
    frame = part.bars.frame
    if base.keys.equals(frame.select(base.keys.columns)):
        return part.positions
    numbered = frame.select(base.keys.columns).with_columns(pl.Series("__own", part.positions))
    joined = base.keys.join(numbered, on=base.keys.columns, how="left", maintain_order="left")
    return joined["__own"].fill_null(-1).to_numpy()


def _suspects(base: Observation, answer: Observation, rows: Integers, names: list[str]) -> dict[str, int]:
    """Feature → first of `rows` of the base at which the answer differs."""
    if base.keys.equals(answer.keys):
        return {name: int(rows[found]) for name, found in differing(base, answer, (rows, rows), names).items()}
    chosen = Observation(base.frame[rows], base.known[rows])
    pairing = paired(chosen, answer, _FOREVER)
    lost = np.setdiff1d(np.arange(len(rows)), pairing.mine)
    found = differing(chosen, answer, (pairing.mine, pairing.theirs), names)
    suspects = {name: int(rows[pairing.mine[at]]) for name, at in found.items()}
    return suspects if not len(lost) else dict.fromkeys(names, int(rows[lost[0]])) | suspects


def _time(micros: int) -> str:
    return f"{EPOCH + timedelta(microseconds=micros):%Y-%m-%d %H:%M:%S}"


def _words(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:200].rstrip(".")
