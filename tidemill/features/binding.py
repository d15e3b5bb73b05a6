"""What a run of the kernels works on, bound once: a table of addresses, and the arrays to which they lead."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.features.arrays import Flags, Floats, Integers
from tidemill.features.expression import INPUTS
from tidemill.features.kernels import bound
from tidemill.features.kernels.scratch import SCRATCH
from tidemill.features.program import Program


class Bound:
    """Arrays for `execute` and their `table`, which is valid as long as this object lives. Contents may change, places not.

    columns: one for each of INPUTS, empty where unused; an empty average price is made from high, low and close. result:
    features × rows of the columns. at, mirror: layout of `memory`, whose constants are in place. bounds: of the symbols in a
    scan, the layout of blocks in a step. lists: sorted windows, a row a symbol in a scan and a block in a step.
    state: symbols × places in a scan, blocks × (places × width) in a step. history: read by a scan alone; clean and
    position, the row of the rings: by a step alone. Raises ValueError for an array that is not in C order or of another type.
    """

    def __init__(
        self,
        program: Program,
        columns: Sequence[Floats],
        result: Floats,
        *,
        at: Integers,
        mirror: Integers,
        bounds: Integers,
        clean: Integers,
        position: Integers,
        present: Flags,
        memory: Floats,
        lists: Floats,
        state: Floats,
        history: Floats,
    ) -> None:
        self._arrays: dict[int, NDArray[Any]] = {
            bound.CODE: program.code, bound.NUMBERS: program.numbers, bound.OUTPUTS: program.outputs,
            bound.DEPTH: program.depth, bound.RAW: program.raw, bound.AT: at, bound.MIRROR: mirror, bound.BOUNDS: bounds,
            bound.CLEAN: clean, bound.POSITION: position, bound.PLACES: np.empty_like(at), bound.PRESENT: present,
            bound.MEMORY: memory, bound.SCRATCH: np.empty(SCRATCH), bound.LISTS: lists, bound.STATE: state,
            bound.HISTORY: history, bound.RESULT: result,
        }  # fmt: skip
        self._arrays |= {bound.COLUMN + index: column for index, column in zip(range(len(INPUTS)), columns, strict=True)}
        self.table = np.zeros((len(self._arrays), 3), dtype=np.int64)
        for place, array in self._arrays.items():
            self.table[place] = _entry(place, array)


def _entry(place: int, array: NDArray[Any]) -> tuple[int, int, int]:
    """Address, rows and columns."""
    if array.dtype != _type(place) or not array.flags.c_contiguous or array.ndim > 2:
        raise ValueError(
            f"Array {place} of a run of the kernels has the wrong type or memory order: {array.dtype}, {array.strides}."
        )
    rows, columns = (1, *array.shape)[-2:]
    return array.ctypes.data, rows, columns


def _type(place: int) -> type[np.generic]:
    return np.int64 if place < bound.PRESENT else np.bool_ if place == bound.PRESENT else np.float64
