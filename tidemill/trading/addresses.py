"""Many arrays for a compiled step as one: numba takes 0.1 µs for each array that Python hands it, and this table once.

`features.kernels.bound` reads such a table within compiled code. Contents of the arrays may change, their places may not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def addressed(arrays: Sequence[NDArray[Any]]) -> Indices:
    """Address, rows and columns of each array. Who makes a table keeps its arrays alive for as long as it is used.

    ValueError for an array that is not in C order, or of another type than a table's reader takes it for.
    """
    table = np.empty((len(arrays), 3), dtype=np.int64)
    for place, array in enumerate(arrays):
        if not array.flags.c_contiguous or array.ndim > 2 or array.dtype not in (np.float64, np.int64, np.bool_):
            raise ValueError(f"Array {place} of a compiled step has the wrong type or memory order: {array.dtype}.")
        table[place] = (array.ctypes.data, *(1, *array.shape)[-2:])
    return table
