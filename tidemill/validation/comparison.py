"""Where two columns differ, bit for bit: a causality proof looks at every value of every computation, so this is compiled."""

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_MAGNITUDE = 0x7FFF_FFFF_FFFF_FFFF
_INFINITE = 0x7FF0_0000_0000_0000


def bits_of(values: Floats) -> Integers:
    """The bits of each value as an integer. Read-only, so that one compiled form serves columns of any origin."""
    bits: Integers = np.ascontiguousarray(values).view(np.int64)
    if bits.flags.writeable:
        bits.flags.writeable = False
    return bits


@entry
def first_difference(mine: Integers, theirs: Integers, rows: Integers, others: Integers) -> int:
    """Least i at which mine[rows[i]] and theirs[others[i]] are bits of other values, -1 for none; any NaN equals any NaN."""
    for i in range(len(rows)):
        one, other = mine[rows[i]], theirs[others[i]]
        if one != other and not ((one & _MAGNITUDE) > _INFINITE and (other & _MAGNITUDE) > _INFINITE):
            return i
    return -1


@entry
def differences(mine: Integers, theirs: Integers, rows: Integers, others: Integers) -> Flags:
    """For each i, whether mine[rows[i]] and theirs[others[i]] are bits of other values; any NaN equals any NaN."""
    found = np.zeros(len(rows), dtype=np.bool_)
    for i in range(len(rows)):
        one, other = mine[rows[i]], theirs[others[i]]
        found[i] = one != other and not ((one & _MAGNITUDE) > _INFINITE and (other & _MAGNITUDE) > _INFINITE)
    return found
