"""A set of features as a table that the kernels run: each common part once, windows of one input in one scan."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.features import opcodes as oc
from tidemill.features.arrays import Floats, Integers
from tidemill.features.declaration import Feature
from tidemill.features.expression import ELEMENTWISE, INPUTS, Expression, walk
from tidemill.features.fusion import fused
from tidemill.features.stages import Stages, plan

_ELEMENTWISE = {
    "add": oc.ADD, "subtract": oc.SUBTRACT, "multiply": oc.MULTIPLY, "divide": oc.DIVIDE, "maximum": oc.MAXIMUM,
    "minimum": oc.MINIMUM,
    "greater": oc.GREATER, "greater_equal": oc.GREATER_EQUAL, "not_equal": oc.NOT_EQUAL, "where": oc.WHERE,
    "absolute": oc.ABSOLUTE,
    "log": oc.LOG, "square_root": oc.SQUARE_ROOT,
}  # fmt: skip
# operator: (group, what it emits, sign)
_WINDOWED = {
    "sum": (oc.SUMS, oc.EMIT_SUM, 0.0), "mean": (oc.MEANS, oc.EMIT_MEAN, 0.0), "std": (oc.SPREADS, oc.EMIT_STD, 0.0),
    "wma": (oc.LINES, oc.EMIT_WMA, 0.0), "slope": (oc.LINES, oc.EMIT_SLOPE, 0.0), "rsquare": (oc.LINES, oc.EMIT_RSQUARE, 0.0),
    "resid": (oc.LINES, oc.EMIT_RESID, 0.0), "corr": (oc.PAIRS, oc.EMIT_OTHER, 0.0), "max": (oc.GREATEST, oc.EMIT_OTHER, 0.0),
    "min": (oc.SMALLEST, oc.EMIT_OTHER, 0.0), "argmax": (oc.ARG_OLDEST, oc.EMIT_PLACE, 1.0), "argmin": (oc.ARG_OLDEST,
    oc.EMIT_PLACE, -1.0),
    "since_max": (oc.ARG_NEWEST, oc.EMIT_SINCE, 1.0), "since_min": (oc.ARG_NEWEST, oc.EMIT_SINCE, -1.0), "rank": (oc.RANKS,
    oc.EMIT_OTHER, 0.0),
    "quantile": (oc.SORTED, oc.EMIT_OTHER, 0.0), "mean_deviation": (oc.DEVIATIONS, oc.EMIT_OTHER, 0.0),
    "rises": (oc.CHANGES, oc.EMIT_RISES, 0.0), "falls": (oc.CHANGES, oc.EMIT_FALLS, 0.0), "moves": (oc.CHANGES, oc.EMIT_MOVES,
    0.0), "rose": (oc.CHANGES, oc.EMIT_ROSE, 0.0), "fell": (oc.CHANGES, oc.EMIT_FELL, 0.0),
}  # fmt: skip
_RECURSIVE = {
    "smooth": (oc.SMOOTH, 2),
    "adaptive": (oc.ADAPTIVE, 2),
    "cumulative": (oc.CUMULATIVE, 1),
    "sar": (oc.SAR, oc.SLOTS_OF_SAR),
}
# Scans of one input that a longer scan of the same input includes: sums of squares hold the mean, the line holds both.
_MOMENTS = (oc.MEANS, oc.SPREADS, oc.LINES)
# Groups that also read the bar before their window: the value that leaves, or that the oldest one changed from.
_ONE_BEFORE = (oc.SORTED, oc.CHANGES)
_AGED = (oc.ARG_OLDEST, oc.ARG_NEWEST, oc.CHANGES)


@dataclass(frozen=True)
class Program:
    """Tables for the kernels. Nodes are numbered; `depth[n]` is how many earlier values of node n some window reads.

    raw: node of each column of INPUTS, -1 where unused. constants, values: nodes that never change. slots: places of carried
    state a symbol.
    outputs: (row of the code after which it is known, node, feature), in that order. (code, numbers): see opcodes.py. lists:
    (node, window, first row) of each sorted window. places: nodes that share one place have one number, -1 where a node keeps a
    place of its own. stages: what follows the kernels.
    """

    code: Integers
    numbers: Floats
    depth: Integers
    raw: Integers
    constants: Integers
    values: Floats
    slots: int
    outputs: Integers
    lists: Integers
    places: Integers
    stages: Stages

    @property
    def carried(self) -> int:
        """Places of carried state a symbol: those of the kernels, then those of the second stage."""
        return self.slots + self.stages.slots

    @property
    def history(self) -> int:
        """Numbers of history that one symbol keeps."""
        return int(self.depth.sum())

    @property
    def listed(self) -> int:
        """Rows of all sorted windows (see kernels/sorting.py)."""
        return int((self.lists[:, 1] + 2).sum())

    def sorted_windows(self, history: Floats) -> Floats:
        """The sorted windows (symbols × `listed`) after the bars of `history` (symbols × `history`)."""
        ends, rows = np.cumsum(self.depth), np.full((len(history), self.listed), np.inf)
        for node, window, first in self.lists:
            held = history[:, ends[node] - window : ends[node]] + 0.0  # one zero, as in kernels/sorting.py
            rows[:, first] = -np.inf
            rows[:, first + 1 : first + 1 + window] = np.sort(np.where(np.isnan(held), np.inf, held), axis=1)
        return rows

    def scan_layout(self) -> tuple[Integers, int]:
        """Where each node's block begins in the work area of a scan, and the size of that area."""
        shared = (int(self.places.max(initial=-1)) + 1) * oc.BLOCK
        spans = np.where(self.places < 0, self.depth + oc.BLOCK, 0)
        own = shared + np.cumsum(spans) - spans + self.depth
        return np.where(self.places < 0, own, self.places * oc.BLOCK), shared + int(spans.sum())

    def step_layout(self, width: int, blocks: int) -> tuple[Integers, int, int, Integers]:
        """The memory of a stream: where each node begins, the size of it all, the size of a block's rings, and the distance of
        ring nodes to their twin rows. Nodes without a ring have one place for all blocks; rings are those of the first block.
        """
        ringed = self.depth > 0
        plain = np.where(~ringed & (self.places < 0), width, 0)
        shared = (int(self.places.max(initial=-1)) + 1) * width
        rings = np.where(ringed, 2 * (self.depth + 1) * width, 0)
        front, size = shared + int(plain.sum()), int(rings.sum())
        single = np.where(self.places < 0, shared + np.cumsum(plain) - plain, self.places * width)
        offsets = np.where(ringed, front + np.cumsum(rings) - rings, single)
        return offsets, front + size * blocks, size, rings // 2


class _Builder:
    def __init__(self, features: Iterable[Feature]) -> None:
        expressions, self.stages = plan(features)
        known: dict[str, Expression] = {}
        self.expressions = [fused(expression, known) for expression in expressions]
        self.node_of: dict[str, int] = {}
        self.depth: list[int] = []
        self.rows: list[list[int]] = []
        self.numbers: list[list[float]] = []
        self.raw = [-1] * len(INPUTS)
        self.constants: dict[int, float] = {}
        self.slots = 0
        self.lists: list[tuple[int, int, int]] = []
        self.age = -1
        self.groups = self._find_groups()

    def _find_groups(self) -> dict[tuple[object, ...], list[Expression]]:
        """Windowed expressions by the scan that yields them, shortest window first."""
        found: dict[str, Expression] = {}
        for expression in self.expressions:
            found.update((node.key, node) for node in walk(expression) if node.operator in _WINDOWED)
        wanted: dict[tuple[str, ...], int] = {}
        for node in found.values():
            group = _WINDOWED[node.operator][0]
            if group in _MOMENTS:
                inputs = _inputs(node)
                wanted[inputs] = max(wanted.get(inputs, 0), group)
        self.wanted = wanted
        groups: dict[tuple[object, ...], list[Expression]] = {}
        for node in sorted(found.values(), key=lambda node: (node.parameters[0], node.key)):
            groups.setdefault(self._group_key(node), []).append(node)
        return groups

    def _group_key(self, node: Expression) -> tuple[object, ...]:
        group, _, sign = _WINDOWED[node.operator]
        inputs = _inputs(node)
        return (self.wanted[inputs] if group in _MOMENTS else group, sign, *inputs)

    def build(self) -> Program:
        wanted = [self._visit(expression) for expression in self.expressions]
        code = np.array(self.rows, dtype=np.int64).reshape(-1, oc.FIELDS)
        made = _made(code)
        outputs = sorted((made.get(node, -1), node, feature) for feature, node in enumerate(wanted))
        return Program(
            code=code,
            numbers=np.array(self.numbers, dtype=np.float64).reshape(-1, oc.FIGURES),
            depth=np.array(self.depth, dtype=np.int64),
            raw=np.array(self.raw, dtype=np.int64),
            constants=np.array(list(self.constants), dtype=np.int64),
            values=np.array(list(self.constants.values()), dtype=np.float64),
            slots=self.slots,
            outputs=np.array(outputs, dtype=np.int64).reshape(-1, 3),
            lists=np.array(self.lists, dtype=np.int64).reshape(-1, 3),
            places=_shared_places(code, made, self.depth),
            stages=self.stages,
        )

    def _visit(self, expression: Expression) -> int:
        for node in walk(expression):
            if node.key not in self.node_of:
                self._add(node)
        return self.node_of[expression.key]

    def _new(self, key: str) -> int:
        self.depth.append(0)
        self.node_of[key] = len(self.depth) - 1
        return len(self.depth) - 1

    def _row(self, opcode: int, out: int, arguments: Iterable[int] = (), numbers: Iterable[float] = (), **fields: int) -> None:
        a, b, c = (*arguments, 0, 0, 0)[:3]
        named = {"window": 0, "least": 0, "slot": 0, "emits": 0} | fields
        self.rows.append([opcode, out, a, b, c, named["window"], named["least"], named["slot"], named["emits"]])
        self.numbers.append([*numbers, 0.0, 0.0, 0.0, 0.0][: oc.FIGURES])

    def _add(self, node: Expression) -> None:
        arguments = [self.node_of[argument.key] for argument in node.arguments]
        if node.operator == "column":
            self.raw[int(node.parameters[0])] = self._new(node.key)
        elif node.operator == "constant":
            self.constants[self._new(node.key)] = node.parameters[0]
        elif node.operator in ELEMENTWISE:
            self._row(_ELEMENTWISE[node.operator], self._new(node.key), arguments)
        elif node.operator == "ref":
            periods = int(node.parameters[0])
            self.depth[arguments[0]] = max(self.depth[arguments[0]], periods)
            self._row(oc.REF, self._new(node.key), arguments, window=periods)
        elif node.operator in _WINDOWED:
            self._add_group(node, arguments)
        else:
            opcode, slots = _RECURSIVE[node.operator]
            self._row(opcode, self._new(node.key), arguments, node.parameters, slot=self._slots(slots))

    def _add_group(self, node: Expression, arguments: list[int]) -> None:
        key = self._group_key(node)
        members, sign = self.groups[key], _WINDOWED[node.operator][2]
        opcode = self.wanted[_inputs(node)] if _WINDOWED[node.operator][0] in _MOMENTS else _WINDOWED[node.operator][0]
        if opcode in _AGED:
            arguments = [arguments[0], self._age_node()]
        longest = int(members[-1].parameters[0])
        for argument in arguments[: len(node.arguments)]:
            self.depth[argument] = max(self.depth[argument], longest if opcode in _ONE_BEFORE else longest - 1)
        first = self._new(members[0].key)
        self._row(opcode, first, arguments, [sign], window=longest, emits=len(members))
        for index, member in enumerate(members):
            out = first if index == 0 else self._new(member.key)
            window, least = int(member.parameters[0]), int(member.parameters[1])
            slot = self._list(arguments[0], window) if opcode == oc.SORTED else 0
            self._row(
                _WINDOWED[member.operator][1], out, arguments, member.parameters[2:3], window=window, least=least, slot=slot
            )

    def _list(self, node: int, window: int) -> int:
        """The first row of the sorted window of a node."""
        for listed, length, first in self.lists:
            if (listed, length) == (node, window):
                return first
        first = sum(length + 2 for _, length, _ in self.lists)
        self.lists.append((node, window, first))
        return first

    def _age_node(self) -> int:
        if self.age < 0:
            self.age = self._new("age")
            self._row(oc.AGE, self.age, slot=self._slots(1))
        return self.age

    def _slots(self, count: int) -> int:
        self.slots += count
        return self.slots - count


def _made(code: Integers) -> dict[int, int]:
    """Node → row at which it is computed, for a group its first row."""
    made: dict[int, int] = {}
    pc = 0
    while pc < len(code):
        emits = int(code[pc, oc.EMITS])
        made |= {int(code[row, oc.OUT]): pc for row in range(pc, pc + 1 + emits)}
        pc += 1 + emits
    return made


def _shared_places(code: Integers, made: dict[int, int], depth: Sequence[int]) -> Integers:
    """A number for each node that is not needed between bars; nodes that are never needed at the same time may share one.

    The work area then stays within the first levels of the cache. A place is given back after the row that reads it last.
    """
    last = dict(made)
    for row, fields in enumerate(code):
        for node in (int(fields[oc.A]), int(fields[oc.B]), int(fields[oc.C])):
            if node in last:
                last[node] = max(last[node], row)
    places = np.full(len(depth), -1, dtype=np.int64)
    free: list[int] = []
    ends = sorted(last, key=last.__getitem__, reverse=True)
    for node in sorted(made, key=made.__getitem__):
        if depth[node] > 0:
            continue
        while ends and last[ends[-1]] < made[node]:
            gone = int(places[ends.pop()])
            if gone >= 0:
                free.append(gone)
        places[node] = free.pop() if free else int(places.max(initial=-1)) + 1
    return places


def _inputs(node: Expression) -> tuple[str, ...]:
    return tuple(argument.key for argument in node.arguments)


def build(features: Iterable[Feature]) -> Program:
    """The program of `features`, in their order. Deterministic: the state's layout follows from the definitions."""
    return _Builder(features).build()
