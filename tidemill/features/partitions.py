"""Features of panels whose result does not fit into memory: a part at a time, each as soon as it is computed.

By time, every part is a partition of the lake and the state goes from one to the next; by symbol, every part holds the whole
history of some. Either way the numbers are those of one computation over everything, to the bit.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from tidemill.domain.errors import InputError
from tidemill.features.arrays import Floats
from tidemill.features.batch import compute_frame, require_bars
from tidemill.features.feature_set import FeatureSet
from tidemill.features.frames import run_bounds
from tidemill.features.state import FeatureState

# What the features of one part may take.
_BYTES_OF_A_PART = 256 * 2**20


class _Room:
    """Memory for results that is used again: fresh pages cost as much as the features."""

    def __init__(self) -> None:
        self._values = np.empty(0)

    def of(self, features: int, rows: int) -> Floats:
        """An array of features × rows, over what was handed out before."""
        if self._values.size < features * rows:
            self._values = np.empty(features * rows)
        return self._values[: features * rows].reshape(features, rows)


def by_time(
    bars: pl.DataFrame, features: FeatureSet, state: FeatureState | None = None, *, every: str = "1y", reuse: bool = False
) -> Iterator[tuple[pl.DataFrame, FeatureState]]:
    """What `features.api.compute` answers for each stretch of `every` (polars' duration: 1mo, 1y …) that holds bars, in turn.

    reuse: a frame is valid only until the next is asked for, which is written over it: fresh memory costs a third of the time.
    Raises what `compute` raises, and InputError for functions of a module.
    """
    _require_no_function(features)
    require_bars(bars)
    room = _Room()
    for first, last in _stretches(bars["open_time"], every):
        part = bars.filter(pl.col("open_time").to_physical().is_between(first, last))
        out = room.of(len(features.names), part.height) if reuse else None
        frame, state = compute_frame(part, features, state, out)
        yield frame, state


def _stretches(times: pl.Series, every: str) -> Iterator[tuple[int, int]]:
    """First and last of the times in each stretch of `every`, in turn, as the integers that they are stored as."""
    known = times.unique().sort().to_frame("time")  # each once: calendars are slow to reckon with
    stretches = known.group_by(pl.col("time").dt.truncate(every).alias("stretch"), maintain_order=True)
    number = pl.col("time").to_physical()
    yield from stretches.agg(number.first().alias("first"), number.last().alias("last")).select("first", "last").rows()


def separable(features: FeatureSet) -> bool:
    """Whether symbols may be computed apart: nothing compares them, and no function of a module has a part."""
    return not features.functions and not features.program.stages.across


def by_symbol(bars: pl.DataFrame, features: FeatureSet, *, reuse: bool = False) -> Iterator[pl.DataFrame]:
    """The rows that `features.api.compute` answers, some symbols at a time. bars: sorted by symbol.

    reuse: see `by_time`. Raises InputError for cross-sectional features and for functions of a module.
    """
    _require_no_function(features)
    if features.program.stages.across:
        raise InputError("Cross-sectional features compare symbols, so they cannot be computed for a few symbols at a time.")
    room = _Room()
    for first, last in _cuts(bars, len(features.names)):
        part = bars[first:last]
        out = room.of(len(features.names), part.height) if reuse else None
        yield compute_frame(part, features, None, out)[0]


def write_parquet(bars: pl.DataFrame, features: FeatureSet, path: Path) -> int:
    """Write the rows of `compute` to one Parquet file, a part of the symbols at a time; the number of rows.

    Errors are those of `by_symbol` and of the operating system.
    """
    rows = 0
    writer: pq.ParquetWriter | None = None
    try:
        for frame in by_symbol(bars, features, reuse=True):
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None:
                # Values hardly repeat: a dictionary of them costs time and makes the file larger.
                writer = pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=["symbol"])
            writer.write_table(table)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _require_no_function(features: FeatureSet) -> None:
    if features.functions:
        name = features.functions[0].name
        raise InputError(f"{name} is a function of a module, which is computed over all bars at once. Use compute().")


def _cuts(bars: pl.DataFrame, features: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 row of each part: whole symbols, of as many rows as may be; at least one part."""
    starts = run_bounds(bars["symbol"])
    most, first = max(1, _BYTES_OF_A_PART // (8 * features)), 0
    while True:
        at = int(np.searchsorted(starts, first + most, side="right")) - 1
        last = int(starts[min(max(at, int(np.searchsorted(starts, first, side="right"))), len(starts) - 1)])
        yield first, last
        if last >= len(bars):
            return
        first = last
