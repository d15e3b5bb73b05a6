"""Columns of frames as arrays, without the detours of polars: a proof asks for them a thousand times."""

import numpy as np
import polars as pl

from tidemill.features.arrays import Integers


def micros(times: pl.Series) -> Integers:
    """Epoch microseconds of times without nulls, read-only."""
    exact = times if getattr(times.dtype, "time_unit", "us") == "us" else times.dt.cast_time_unit("us")
    made: Integers = exact.to_numpy().view(np.int64)
    return made


def run_bounds(names: pl.Series) -> Integers:
    """Where each run of equal names begins, and behind them the number of all. A missing name is a run of its own."""
    if not len(names):
        return np.zeros(1, dtype=np.int64)
    changes = names.slice(1) != names.slice(0, len(names) - 1)
    if changes.null_count():
        changes = changes.fill_null(value=True)
    return np.concatenate([[0], np.flatnonzero(changes.to_numpy()) + 1, [len(names)]]).astype(np.int64)
