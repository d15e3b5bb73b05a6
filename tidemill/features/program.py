"""A set of features as a table that the kernels run: each common part once, windows of one input in one scan."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tidemill.features import opcodes as oc
from tidemill.features.arrays import Integers
from tidemill.features.declaration import Feature
from tidemill.features.expression import ELEMENTWISE, INPUTS, WINDOWED, Expression, walk
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
}  # fmt: skip
_RECURSIVE = {
    "smooth": (oc.SMOOTH, 2),
    "adaptive": (oc.ADAPTIVE, 2),
    "cumulative": (oc.CUMULATIVE, 1),
    "sar": (oc.SAR, oc.SLOTS_OF_SAR),
}
_NUMBERS = 4
# Scans of one input that a longer scan of the same input includes: sums of squares hold the mean, the line holds both.
_MOMENTS = (oc.MEANS, oc.SPREADS, oc.LINES)


@dataclass(frozen=True)
class Program:
    """Tables for the kernels. Nodes are numbered; `depth[n]` is how many earlier values of node n some window reads.

    raw: node of each column of INPUTS, -1 where unused. constants, values: nodes that never change. slots: places of carried
    state a symbol.
    outputs: node of each feature. deepest: longest window. (code, numbers): see opcodes.py. stages: what follows the kernels.
    """

    code: Integers
    numbers: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    depth: Integers
    raw: Integers
    constants: Integers
    values: np.ndarray[tuple[int], np.dtype[np.float64]]
    slots: int
    outputs: Integers
    deepest: int
    stages: Stages

    @property
    def carried(self) -> int:
        """Places of carried state a symbol: those of the kernels, then those of the second stage."""
        return self.slots + self.stages.slots

    @property
    def history(self) -> int:
        """Numbers of history that one symbol keeps."""
        return int(self.depth.sum())

    def scan_layout(self) -> tuple[Integers, int]:
        """Where each node's block begins in the work area of a scan, and the size of that area."""
        spans = self.depth + oc.BLOCK
        return np.cumsum(spans) - spans + self.depth, int(spans.sum())

    def step_layout(self, symbols: int) -> tuple[Integers, int, Integers]:
        """Where each node begins in the memory of a stream, its size, and the distance of ring nodes to their twin rows."""
        rows = np.where(self.depth > 0, 2 * (self.depth + 1), 1)
        spans = rows * symbols
        return np.cumsum(spans) - spans, int(spans.sum()), np.where(self.depth > 0, (self.depth + 1) * symbols, 0)


class _Builder:
    def __init__(self, features: Iterable[Feature]) -> None:
        self.expressions, self.stages = plan(features)
        self.node_of: dict[str, int] = {}
        self.depth: list[int] = []
        self.rows: list[list[int]] = []
        self.numbers: list[list[float]] = []
        self.raw = [-1] * len(INPUTS)
        self.constants: dict[int, float] = {}
        self.slots = 0
        self.age = -1
        self.groups = self._find_groups()

    def _find_groups(self) -> dict[tuple[object, ...], list[Expression]]:
        """Windowed expressions by the scan that yields them, shortest window first."""
        found: dict[str, Expression] = {}
        for expression in self.expressions:
            found.update((node.key, node) for node in walk(expression) if node.operator in WINDOWED)
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
        outputs = [self._visit(expression) for expression in self.expressions]
        windows = [row[oc.WINDOW] for row in self.rows]
        return Program(
            code=np.array(self.rows, dtype=np.int64).reshape(-1, oc.FIELDS),
            numbers=np.array(self.numbers, dtype=np.float64).reshape(-1, _NUMBERS),
            depth=np.array(self.depth, dtype=np.int64),
            raw=np.array(self.raw, dtype=np.int64),
            constants=np.array(list(self.constants), dtype=np.int64),
            values=np.array(list(self.constants.values()), dtype=np.float64),
            slots=self.slots,
            outputs=np.array(outputs, dtype=np.int64),
            deepest=max(windows, default=1) or 1,
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
        self.numbers.append([*numbers, 0.0, 0.0, 0.0, 0.0][:_NUMBERS])

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
        elif node.operator in WINDOWED:
            self._add_group(node, arguments)
        else:
            opcode, slots = _RECURSIVE[node.operator]
            self._row(opcode, self._new(node.key), arguments, node.parameters, slot=self._slots(slots))

    def _add_group(self, node: Expression, arguments: list[int]) -> None:
        key = self._group_key(node)
        members, sign = self.groups[key], _WINDOWED[node.operator][2]
        opcode = self.wanted[_inputs(node)] if _WINDOWED[node.operator][0] in _MOMENTS else _WINDOWED[node.operator][0]
        if opcode in (oc.ARG_OLDEST, oc.ARG_NEWEST):
            arguments = [arguments[0], self._age_node()]
        longest = int(members[-1].parameters[0])
        for argument in arguments[: len(node.arguments)]:
            self.depth[argument] = max(self.depth[argument], longest - 1)
        first = self._new(members[0].key)
        self._row(opcode, first, arguments, [sign], window=longest, emits=len(members))
        for index, member in enumerate(members):
            out = first if index == 0 else self._new(member.key)
            window, least = int(member.parameters[0]), int(member.parameters[1])
            self._row(_WINDOWED[member.operator][1], out, arguments, member.parameters[2:3], window=window, least=least)

    def _age_node(self) -> int:
        if self.age < 0:
            self.age = self._new("age")
            self._row(oc.AGE, self.age, slot=self._slots(1))
        return self.age

    def _slots(self, count: int) -> int:
        self.slots += count
        return self.slots - count


def _inputs(node: Expression) -> tuple[str, ...]:
    return tuple(argument.key for argument in node.arguments)


def build(features: Iterable[Feature]) -> Program:
    """The program of `features`, in their order. Deterministic: the state's layout follows from the definitions."""
    return _Builder(features).build()
