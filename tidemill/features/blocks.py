"""The memory of a stream: symbols side by side in blocks, each with its rings, sorted windows and carried state.

A block is a few hundred symbols wide, so that what one row of the program reads lies together and the work area of all
rows stays in the cache.
"""

import numpy as np

from tidemill.features.arrays import Floats
from tidemill.features.program import Program
from tidemill.features.state import FeatureState

# Rows of a block begin where a cache line does; a handful of symbols are not worth it, and few are quicker one by one.
_LINE = 8
_ONE_BY_ONE = 4
# At most `opcodes.BLOCK`.
_WIDEST = 256


class Blocks:
    """Arrays that `execute` works on when it steps, filled from a state. Their layouts: `Program.step_layout`, `execute`."""

    def __init__(self, program: Program, state: FeatureState) -> None:
        self.program, self.count = program, len(state.symbols)
        blocks = -(-self.count // (_WIDEST if self.count > _ONE_BY_ONE else 1))
        width = -(-self.count // blocks)
        self.width = width if width < _LINE else -(-width // _LINE) * _LINE
        self.offsets, size, rings, self.mirror = program.step_layout(self.width, blocks)
        self.layout = np.array([self.width, rings], dtype=np.int64)
        self.memory = np.full(size, np.nan)
        for node, value in zip(program.constants, program.values, strict=True):
            self.memory[self.offsets[node] : self.offsets[node] + self.width] = value
        self.position = np.zeros(blocks, dtype=np.int64)
        self.clean = np.zeros((blocks, len(program.depth)), dtype=np.int64)
        self.slots = np.zeros((blocks, program.slots * self.width))
        self.lists = np.full((blocks, program.listed * self.width), np.inf)
        self._load(state)

    def _load(self, state: FeatureState) -> None:
        program = self.program
        listed = program.sorted_windows(state.history)
        for block in range(len(self.position)):
            own = slice(block * self.width, min((block + 1) * self.width, self.count))
            lanes = own.stop - own.start
            self._rows_of(self.slots[block])[:, :lanes] = state.slots[own, : program.slots].T
            self._rows_of(self.lists[block])[:, :lanes] = listed[own].T
            for node, depth, values in self._histories(state.history[own]):
                ring = self._ring(block, node)
                ring[self._rows(block, depth), :lanes] = values.T
                ring[depth + 1 :] = ring[: depth + 1]
                self.clean[block, node] = _clean_bars(values)

    def history(self) -> Floats:
        """Earlier values as a state keeps them: symbols × `Program.history`."""
        history = np.empty((self.count, self.program.history))
        for block in range(len(self.position)):
            own = history[block * self.width : (block + 1) * self.width]
            for node, depth, values in self._histories(own):
                values[:] = self._ring(block, node)[self._rows(block, depth), : len(own)].T
        return history

    def carried(self) -> Floats:
        """Carried state as a state keeps it: symbols × `Program.slots`."""
        rows = [self._rows_of(self.slots[block]).T for block in range(len(self.position))]
        return np.concatenate(rows)[: self.count]

    def _rows_of(self, array: Floats) -> Floats:
        return array.reshape(-1, self.width)

    def _histories(self, history: Floats) -> list[tuple[int, int, Floats]]:
        """(node, depth, values of that node, oldest first) for each ring node; views of `history`."""
        depths = [(node, int(depth)) for node, depth in enumerate(self.program.depth) if depth]
        ends = np.cumsum([depth for _, depth in depths])
        return [(node, depth, history[:, end - depth : end]) for (node, depth), end in zip(depths, ends, strict=True)]

    def _ring(self, block: int, node: int) -> Floats:
        """The rows of a ring node with their twins: 2 · (depth + 1) × width, a view."""
        rows = 2 * (int(self.program.depth[node]) + 1)
        begin = int(self.offsets[node] + block * self.layout[1])
        return self.memory[begin : begin + rows * self.width].reshape(rows, self.width)

    def _rows(self, block: int, depth: int) -> list[int]:
        """Rows of the newest `depth` values in the first half of a ring, oldest first."""
        newest = int(self.position[block])
        return [(newest - back) % (depth + 1) for back in range(depth - 1, -1, -1)]


def _clean_bars(values: Floats) -> int:
    """For how many bars up to the last one no symbol has missed a value."""
    missing = np.flatnonzero(np.isnan(values).any(axis=0))
    return int(values.shape[1] - 1 - missing[-1] if len(missing) else values.shape[1])
