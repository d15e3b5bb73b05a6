"""The judge of one causality proof: what is still open, and what was refuted by which value (see `prove`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from tidemill.domain.errors import InputError, RetryError, TidemillError
from tidemill.domain.intervals import EPOCH
from tidemill.validation.causality.cuts import cut_times, late_listings, listing_cuts
from tidemill.validation.causality.inputs import Compute, ProofInputs, limits_of
from tidemill.validation.causality.living import Draw, Values, few_symbols, own_differences, rounds, span_starts, within
from tidemill.validation.causality.observation import (
    Integers,
    Observation,
    Pairing,
    beyond_rounding,
    differing,
    paired,
    paired_rows,
    require_unique,
)
from tidemill.validation.causality.proof import Effort, Proof, Refutation, Unjudged

_FOREVER = int(np.iinfo(np.int64).max)
_ON_THE_LAST = "it lives on the last bars alone, and nothing is known yet that follows them"


class Judge:
    """One proof under way."""

    def __init__(self, compute: Compute, effort: Effort, say: Callable[[str], None]) -> None:
        self._compute, self._effort, self._say = compute, effort, say
        self._names: tuple[str, ...] = ()
        self._open: dict[str, None] = {}
        self._refuted: dict[str, Refutation] = {}
        self._failed: dict[str, Refutation] = {}
        self._longer: set[str] = set()
        self._runs = 0
        # Values on all bars, on those that something follows, and on those that are altered one by one.
        self._all, self._followed, self._altered = Values(), Values(), Values()

    def judge(self, inputs: ProofInputs, lookback: int | None) -> Proof:
        """Prove every column, or say where it looks ahead; lookback: see `prove`."""
        if lookback is None or inputs.beside:
            return self._proof(self._judge_whole(inputs))
        crossing = self._judge_parts(inputs, lookback)
        if crossing:
            self._judge_whole(inputs)
        return self._proof(crossing)

    def _proof(self, crossing: set[str]) -> Proof:
        wrong = self._failed | self._refuted
        good = [name for name in self._names if name not in wrong]
        late = self._all.several - self._followed.several
        return Proof(
            proven=tuple(name for name in good if name not in late),
            refuted=tuple(wrong[name] for name in self._names if name in wrong),
            runs=self._runs,
            longer=tuple(name for name in good if name in self._longer),
            cross_sectional=tuple(name for name in self._names if name in crossing),
            unjudged=tuple(Unjudged(name, _ON_THE_LAST) for name in good if name in late),
            silent=tuple(name for name in good if name not in self._all.several),
        )

    def _judge_whole(self, inputs: ProofInputs) -> set[str]:
        """All symbols together; returns the features that depend on other symbols."""
        base, few = self._first(inputs), few_symbols(inputs, self._effort.altered)
        crossing = self._crossing(inputs, base) if not inputs.beside else set(self._names)
        self._twice(inputs, base)
        batches = 1 if crossing else 1 + inputs.bars.frame.height // self._effort.batch
        self._cuts(inputs, base, self._fewer(batches))
        if crossing:
            self._listings(inputs, base)
        if self._effort.every_bar:
            self._windows(few)
            for first, last in self._spans(few):
                self._altered.look(base, _rows_of(base, few, within(base, first, last)))
        self._living(inputs, base, crossing)
        return crossing if not inputs.beside else set()

    def _judge_parts(self, inputs: ProofInputs, lookback: int) -> set[str]:
        """Some symbols at a time, unless features depend on other symbols: these are returned."""
        if self._effort.every_bar:
            crossing = self._judge_few(few_symbols(inputs, self._effort.altered), lookback)
            if crossing:
                return crossing
        parts = _parts(inputs, self._effort.batch)
        for number, part in enumerate(parts):
            self._say(f"part {number + 1} of {len(parts)}")
            base = self._first(part, inputs)
            crossing = self._crossing(part, base)
            if crossing:
                return crossing
            if not number:
                self._twice(part, base)
            self._cuts(part, base, self._fewer(len(parts)))
            self._living(part, base, set())
        return set()

    def _judge_few(self, few: ProofInputs, lookback: int) -> set[str]:
        base = self._first(few)
        crossing = self._crossing(few, base)
        if crossing:
            return crossing
        self._altered.look(base, np.arange(len(base.known)))
        unexplained = self._comb(few, base, lookback)
        if unexplained:
            self._longer |= unexplained
            self._windows(few)
        return set()

    def _first(self, inputs: ProofInputs, whole: ProofInputs | None = None) -> Observation:
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
            raise InputError("The function returns no feature. Return symbol, open_time and one column for each feature.")
        if not self._names:
            self._names = answer.features
        self._open = dict.fromkeys(name for name in self._names if name not in self._refuted)
        self._all.look(answer, np.arange(len(answer.known)))
        self._followed.look(answer, np.flatnonzero(answer.known < (whole or inputs).slots[-1]))
        return answer

    def _answer(self, inputs: ProofInputs, what: str) -> Observation | None:
        """The answer to other inputs; when there is none, everything still open is said to fail."""
        answer = self._tried(inputs)
        if isinstance(answer, Observation):
            return answer
        last = inputs.bars.frame.tail(1)
        symbol, time = (str(last["symbol"][0]), last["open_time"][0]) if last.height else ("", EPOCH)
        self._fail(self._open, symbol, time, f"it fails {what}: {answer}")
        return None

    def _tried(self, inputs: ProofInputs) -> Observation | str:
        """The answer to other inputs, or in words why there is none."""
        self._runs += 1
        try:
            return inputs.answer(self._compute)
        except RetryError:
            raise
        except Exception as exc:  # arbitrary code: it could not have run at that time
            return _words(exc)

    def _crossing(self, inputs: ProofInputs, base: Observation) -> set[str]:
        """Features whose values depend on which other symbols are there: halves of them are left out in two ways."""
        names = inputs.bars.frame["symbol"][inputs.bounds[:-1]].to_list()
        halves = [names[::2], names[1::2], names[: len(names) // 2], names[len(names) // 2 :]]
        crossing = set[str]()
        for half in halves[: 4 if len(names) > 2 else 2] if len(names) > 1 else []:
            crossing |= self._differs_alone(inputs.of_symbols(half), base)
        return crossing

    def _differs_alone(self, part: ProofInputs, base: Observation) -> set[str]:
        answer = self._tried(part)
        if not isinstance(answer, Observation):  # that it fails without a symbol shows that it needs it
            return set(base.features)
        own = _rows_of(base, part, np.arange(len(base.known)))
        pairing = paired_rows(base, answer, own, np.arange(len(answer.known)))
        if pairing.lone is not None:
            return set(base.features)
        return set(differing(base, answer, (pairing.mine, pairing.theirs), base.features))

    def _twice(self, inputs: ProofInputs, base: Observation) -> None:
        again = self._answer(inputs, "when it is computed twice")
        if again is not None:
            self._compare(base, again, paired(base, again, _FOREVER), "a second computation on the same bars")

    def _fewer(self, batches: int) -> int:
        """Cuts of a batch, where there are so many of them: each bar of theirs is cut for its own symbol alone."""
        return max(2 * self._effort.cuts // (batches + 1), 1)

    def _cuts(self, inputs: ProofInputs, base: Observation, count: int) -> None:
        for cut in cut_times(inputs, count):
            if not self._open:
                return
            self._cut(inputs, base, cut)

    def _listings(self, inputs: ProofInputs, base: Observation) -> None:
        """Cut just before each listing of the panel, and of panels that are the same but for a symbol that is listed later."""
        for time in listing_cuts(inputs):
            if self._open:
                self._cut(inputs, base, time)
        for other, time in late_listings(inputs):
            late = self._tried(other) if self._open else ""
            if isinstance(late, Observation):  # else it needs every symbol, and there is nothing to compare with
                self._cut(other, late, time)

    def _cut(self, inputs: ProofInputs, base: Observation, cut: int) -> None:
        """Remove, then alter, what is known after `cut`; all that is known at it must stay."""
        for made, what in ((inputs.until(cut), "removing"), (inputs.altered_after(cut), "altering")):
            answer = self._answer(made, f"on what was known at {_time(cut)}")
            if answer is not None:
                self._compare(base, answer, paired(base, answer, cut), f"{what} what became known after {_time(cut)}")

    def _compare(self, base: Observation, answer: Observation, pairing: Pairing, what: str) -> None:
        if pairing.lone is not None:
            self._refute_all(*pairing.lone, f"the row itself comes or goes with {what}")
        there = [name for name in self._open if name in answer.columns]
        lost = [name for name in self._open if name not in answer.columns]
        self._fail(lost, *base.row(0), f"its answer has no column of that name with {what}")
        rows = (pairing.mine, pairing.theirs)
        for name, found in differing(base, answer, rows, there).items():
            more = beyond_rounding(base, answer, rows, name)
            if more is None:
                why = f"its last bits change with {what}: rounding, which depends here on the bars that follow"
                self._fail([name], *base.row(int(pairing.mine[found])), why)
            else:
                self._refute(name, *base.row(int(pairing.mine[more])), f"its value changes with {what}")

    def _living(self, inputs: ProofInputs, base: Observation, crossing: set[str]) -> None:
        """Cut where a window's own value is not the whole's, or where a feature lives that was dull among the altered bars."""
        if not self._effort.living or not self._open:
            return
        draw = Draw(base, self._effort.living, inputs.seed)
        followed = base.known < inputs.slots[-1]
        rows = {name: own[followed[own]] for name, own in self._living_rows(inputs, base).items()}
        lost = self._cut_alone(inputs, base, {name: draw.drawn(own) for name, own in rows.items() if name not in crossing})
        together = {name: draw.drawn_together(own) for name, own in rows.items() if name in crossing or name in lost}
        for time in _times(base, together):
            if not any(name in self._open for name in together):
                return
            self._cut(inputs, base, time)

    def _living_rows(self, inputs: ProofInputs, base: Observation) -> dict[str, Integers]:
        slots, found = inputs.slots, {name: np.zeros(len(base.known), dtype=np.bool_) for name in self._open}
        for name, flags in found.items():
            flags[self._altered.others(base, name)] = True
        drawn = np.random.default_rng((inputs.seed, len(slots))).random(len(slots))
        for start in span_starts(len(slots), self._effort.span, self._effort.compared, inputs.seed):
            window, first, last = self._window(inputs, start)
            tried = self._tried(window)
            answer = tried if isinstance(tried, Observation) else None
            for name, rows in own_differences(base, answer, (first, last), tuple(found)):
                found[name][rows] = True
            # Of a panel that is too large to be altered slot by slot, one slot of each window.
            at = start + int(drawn[start] * np.searchsorted(slots[start:], last))
            if answer is not None and at > start and inputs.bars.frame.height > self._effort.altered:
                self._alter(window, answer, int(slots[at - 1]), int(slots[at]))
        return {name: np.flatnonzero(flags) for name, flags in found.items()}

    def _cut_alone(self, inputs: ProofInputs, base: Observation, rows: dict[str, Integers]) -> set[str]:
        """Cut each symbol at rows of its own; returns the features that only a cut of everything can judge."""
        lost = set[str]()
        wanted = np.unique(np.concatenate([*rows.values(), np.empty(0, dtype=np.int64)]))
        for limits in rounds(base, wanted):
            for made in (inputs.until_each(limits), inputs.altered_after_each(limits)):
                names = [name for name in rows if name in self._open and name not in lost]
                answer = self._tried(made) if names else ""
                if not isinstance(answer, Observation):
                    return lost | set(names)
                mine = np.flatnonzero(base.known <= limits_of(base.frame, limits))
                theirs = np.flatnonzero(answer.known <= limits_of(answer.frame, limits))
                pairing = paired_rows(base, answer, mine, theirs)
                if pairing.lone is not None:
                    self._cut(inputs, base, limits.get(pairing.lone[0], _FOREVER))
                for name, at in differing(base, answer, (pairing.mine, pairing.theirs), names).items():
                    if name in self._open:
                        self._cut(inputs, base, limits[base.row(int(pairing.mine[at]))[0]])
                    if name in self._open:
                        lost.add(name)
        return lost

    def _comb(self, part: ProofInputs, base: Observation, lookback: int) -> set[str]:
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

    def _spans(self, inputs: ProofInputs) -> list[tuple[int, int]]:
        """First and last slot of the windows in which every slot is altered."""
        slots, span = inputs.slots, self._effort.span
        starts = span_starts(len(slots), span, self._effort.slots, inputs.seed)
        return [(int(slots[start]), int(slots[min(start + span, len(slots)) - 1])) for start in starts]

    def _window(self, inputs: ProofInputs, start: int) -> tuple[ProofInputs, int, int]:
        """A window as an input of its own, with the first and the last of the slots that it is about."""
        slots, warm = inputs.slots, self._effort.warm
        last = int(slots[min(start + self._effort.span, len(slots)) - 1])
        return inputs.between(int(slots[max(start - warm, 0)]), last), int(slots[start]), last

    def _windows(self, inputs: ProofInputs) -> None:
        """Alter every slot once, in windows that are inputs of their own; one on which the function fails shows nothing."""
        slots = inputs.slots
        for start in span_starts(len(slots), self._effort.span, self._effort.slots, inputs.seed):
            self._say(f"bar {start} of {len(slots)}")
            window, _, last = self._window(inputs, start)
            base = self._tried(window)
            for at in range(max(start, 1), int(np.searchsorted(slots, last)) + 1):
                if not isinstance(base, Observation) or not self._open:
                    break
                self._alter(window, base, int(slots[at - 1]), int(slots[at]))

    def _alter(self, window: ProofInputs, base: Observation, before: int, here: int) -> None:
        """Alter the slot `here`, which follows `before`: nothing until then may change."""
        answer = self._answer(window.altered_within(before, here), "when single bars are altered")
        if answer is not None:
            self._compare(base, answer, paired(base, answer, before), f"altering what became known at {_time(here)}")

    def _refute_all(self, symbol: str, time: object, why: str) -> None:
        for name in tuple(self._open):
            self._refute(name, symbol, time, why)

    def _fail(self, names: Iterable[str], symbol: str, time: object, why: str) -> None:
        """Say that these fail; they stay open, since they may look ahead elsewhere."""
        for name in names:
            self._failed.setdefault(name, Refutation(name, symbol, _utc(time), why, fails=True))

    def _refute(self, name: str, symbol: str, time: object, why: str) -> None:
        self._refuted[name] = Refutation(name, symbol, _utc(time), why)
        self._open.pop(name, None)


def _rows_of(base: Observation, part: ProofInputs, rows: Integers) -> Integers:
    """Those of `rows` that belong to a symbol of the part."""
    names = part.bars.frame["symbol"][part.bounds[:-1]]
    own: Integers = rows[base.keys["symbol"].is_in(names.implode()).to_numpy()[rows]]
    return own


def _times(base: Observation, rows: dict[str, Integers]) -> list[int]:
    """When the rows are known, ascending."""
    return [int(time) for time in np.unique(base.known[np.concatenate([*rows.values(), np.empty(0, dtype=np.int64)])])]


def _utc(time: object) -> datetime:
    moment = time if isinstance(time, datetime) else EPOCH
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _parts(inputs: ProofInputs, rows: int) -> list[ProofInputs]:
    """The symbols in parts of at least `rows` bars each, the last one excepted."""
    parts, first = [], 0
    for last in inputs.bounds[1:]:
        if last - first >= rows or last == inputs.bounds[-1]:
            parts.append(inputs.of_rows(first, int(last)))
            first = int(last)
    return parts


def _own_positions(part: ProofInputs, base: Observation) -> Integers:
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
