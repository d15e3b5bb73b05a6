"""Where features live: the rows at which a window's own value is not the whole's, which of them are cut, and how.

A window is an input of its own, of few bars. What needs more bars than it has (a condition of 400 of them, a count from the
listing on) is another value in it, or none, and altering its bars says nothing of the value that stands in the whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from tidemill.validation.causality.inputs import Flags, ProofInputs
from tidemill.validation.causality.observation import Integers, Observation, living_rows, paired_rows, unequal_rows

# A cut of all symbols at a time tests each that lives then; so many times are cut at least where there are as many.
_TIMES = 48


class Values:
    """Which features were seen with several values; what is unknown is no value."""

    def __init__(self) -> None:
        self.several: set[str] = set()
        self._only: dict[str, object] = {}

    def look(self, answer: Observation, rows: Integers) -> None:
        """Take the values of `rows` into account."""
        for name in answer.features:
            if name in self.several:
                continue
            column = answer.columns[name]
            seen = column[rows].drop_nulls().drop_nans() if column.dtype.is_float() else column[rows].drop_nulls()
            if len(seen) and (seen[0] != self._only.setdefault(name, seen[0]) or bool((seen != seen[0]).any())):
                self.several.add(name)

    def others(self, answer: Observation, name: str) -> Integers:
        """Rows with a value of the feature other than the only one that was seen; none where several were."""
        if name in self.several:
            return np.empty(0, dtype=np.int64)
        return living_rows(answer, name, self._only.get(name))


def span_starts(slots: int, span: int, most: int, seed: int) -> list[int]:
    """Where windows of `span` slots begin: everywhere, or where that is more than `most` slots, at both ends and at random."""
    starts = np.arange(0, slots, span)
    count = max(most // span, 2)
    if len(starts) > count:
        inner = np.random.default_rng((seed, slots)).choice(starts[1:-1], size=count - 2, replace=False)
        starts = np.sort(np.concatenate([starts[:1], inner, starts[-1:]]))
    return [int(start) for start in starts]


def within(answer: Observation, first: int, last: int) -> Integers:
    """Rows that are known in [first, last], epoch microseconds."""
    return np.flatnonzero((answer.known >= first) & (answer.known <= last))


def own_differences(
    base: Observation, answer: Observation | None, bounds: tuple[int, int], names: Iterable[str]
) -> Iterator[tuple[str, Integers]]:
    """Feature → rows of the base, known within bounds, of which a window's own answer has another value, or none."""
    rows = within(base, *bounds)
    if answer is None:
        yield from ((name, rows) for name in names)
        return
    pairing = paired_rows(base, answer, rows, within(answer, *bounds))
    lost = np.setdiff1d(rows, pairing.mine)
    for name in names:
        found = pairing.mine[unequal_rows(base, answer, (pairing.mine, pairing.theirs), name)]
        yield name, np.concatenate([found, lost]) if len(lost) else found


class Draw:
    """Draws rows of an answer to be cut: all of a feature's, or `count` at random and the ends of each symbol."""

    def __init__(self, base: Observation, count: int, seed: int) -> None:
        self._count, self._known, self._seed = count, base.known, seed
        self._symbols = base.keys["symbol"].rank("dense").to_numpy()
        # One order for all features, so that those that live on the same bars are cut together.
        self._turn = np.random.default_rng(seed).permutation(len(base.known))

    def drawn(self, rows: Integers) -> Integers:
        if len(rows) <= self._count:
            return rows
        return np.union1d(rows[np.argsort(self._turn[rows])[: self._count]], self._ends(rows))

    def drawn_together(self, rows: Integers) -> Integers:
        """The same where a cut is one of all symbols: whole times at random, at least `_TIMES`, until there are enough rows."""
        if len(rows) <= self._count:
            return rows
        times, place, counts = np.unique(self._known[rows], return_inverse=True, return_counts=True)
        order = np.random.default_rng((self._seed, len(times))).permutation(len(times))
        enough = int(np.searchsorted(np.cumsum(counts[order]), self._count)) + 1
        chosen = np.isin(place, order[: max(enough, _TIMES)])
        return np.union1d(rows[chosen], self._ends(rows))

    def _ends(self, rows: Integers) -> Integers:
        ordered = rows[np.lexsort((self._known[rows], self._symbols[rows]))]
        fresh: Flags = np.diff(self._symbols[ordered]) != 0
        return np.concatenate([ordered[np.append(True, fresh)], ordered[np.append(fresh, True)]])


def rounds(base: Observation, rows: Integers) -> Iterator[Mapping[str, int]]:
    """Symbol → time at which it is cut, so often that each of `rows` had its turn."""
    times: dict[str, dict[int, None]] = {}
    for symbol, known in zip(base.keys["symbol"][rows], base.known[rows], strict=True):
        times.setdefault(str(symbol), {})[int(known)] = None
    waiting = {symbol: list(own) for symbol, own in times.items()}
    while waiting:
        yield {symbol: own.pop() for symbol, own in waiting.items()}
        waiting = {symbol: own for symbol, own in waiting.items() if own}


def few_symbols(inputs: ProofInputs, rows: int) -> ProofInputs:
    """The bars of those symbols with the most and the fewest, in turn, that have no more than `rows` together; one at least."""
    if inputs.bars.frame.height <= rows:
        return inputs
    counts = np.diff(inputs.bounds)
    order = np.argsort(counts, kind="stable")
    turns = [place for pair in zip(order[::-1], order, strict=True) for place in pair]
    taken = list(dict.fromkeys(int(place) for place in turns))
    room = np.cumsum(counts[taken]) <= rows
    names: Sequence[str] = inputs.bars.frame["symbol"][inputs.bounds[:-1][taken[: max(int(room.sum()), 1)]]].to_list()
    return inputs.of_symbols(names)
