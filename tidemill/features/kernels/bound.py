"""The arrays that `execute` works on, as one table: row `place` is (address, rows, columns) of an array in C order.

An array of one dimension has one row. `binding.py` makes tables and keeps their arrays alive.
"""

from typing import Any

from numba.np.numpy_support import carray

from tidemill.compiled import kernel
from tidemill.features.arrays import Flags, Floats, Integers
from tidemill.features.kernels.pointers import flags_from, floats_from, integers_from

# int64 …
CODE, OUTPUTS, DEPTH, RAW, AT, MIRROR, BOUNDS, CLEAN, POSITION, PLACES = range(10)
# bool …
PRESENT = 10
# float64
NUMBERS, MEMORY, SCRATCH, LISTS, STATE, HISTORY, RESULT = range(11, 18)
# Column j of INPUTS is array COLUMN + j; one without numbers is not given.
COLUMN = RESULT + 1
ADDRESS, ROWS, COLUMNS = range(3)
# An array over a pointer: with length and slices, but without an owner. numba annotates it for pointers of ctypes alone.
array_over: Any = carray


@kernel
def integers(table: Integers, place: int) -> Integers:
    made: Integers = array_over(integers_from(table[place, ADDRESS]), (table[place, COLUMNS],))
    return made


@kernel
def integers_by_row(table: Integers, place: int) -> Integers:
    made: Integers = array_over(integers_from(table[place, ADDRESS]), (table[place, ROWS], table[place, COLUMNS]))
    return made


@kernel
def flags(table: Integers, place: int) -> Flags:
    made: Flags = array_over(flags_from(table[place, ADDRESS]), (table[place, COLUMNS],))
    return made


@kernel
def floats(table: Integers, place: int) -> Floats:
    made: Floats = array_over(floats_from(table[place, ADDRESS]), (table[place, COLUMNS],))
    return made


@kernel
def floats_by_row(table: Integers, place: int) -> Floats:
    made: Floats = array_over(floats_from(table[place, ADDRESS]), (table[place, ROWS], table[place, COLUMNS]))
    return made
