"""What arrives at the chain: one slot of bars, and what became known with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.market.adjusting import ToldAction
from tidemill.trading.context import IndexVersion

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


class BarsOfSlot(NamedTuple):
    """One slot as it closes. number: which one of the book's calendar, counted from the anchor.

    rows: raw [`adjusting.COLUMNS`, symbols]. present: which symbols have a bar; own: whose calendar has this slot. actions,
    index_versions, news: what became known since the slot before, in order of time. contiguous: False where slots are missing
    before this one, so that orders which waited for those have passed. due: [symbols] when the slot opens for which an order
    waits that is decided here, epoch microseconds; None where all symbols follow one calendar.
    """

    open_time: datetime
    number: int
    rows: Floats
    present: Flags
    own: Flags
    actions: Sequence[ToldAction] = ()
    index_versions: Sequence[IndexVersion] = ()
    news: Sequence[tuple[str, float]] = ()
    contiguous: bool = True
    due: Indices | None = None
