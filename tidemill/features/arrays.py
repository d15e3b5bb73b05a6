"""Array types of the feature engine."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
# One array for each of tidemill.features.expression.COLUMNS; read-only, so that one compiled form serves batch and stream.
Columns: TypeAlias = tuple[Floats, ...]
