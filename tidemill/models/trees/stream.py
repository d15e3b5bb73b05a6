"""Scoring by LightGBM's trees, row by row: one kernel for whole panels and for the newest bar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from tidemill.models.artifact import Artifact
from tidemill.models.base import Floats, distinct, require_shape
from tidemill.models.trees.kernel import score
from tidemill.models.trees.table import LARGEST, table


def scored(artifact: Artifact, rows: NDArray[np.float32]) -> Floats:
    """Predictions [rows] for [rows, features], NaN where unknown. Raises IntegrityError for a text that holds no such trees."""
    trees, made = table(artifact.text, rows.shape[1]), np.empty(len(rows))
    score(rows, trees.roots, trees.depths, trees.branches, trees.thresholds, trees.values, made)
    return made


class TreesStream:
    """Live scoring of `symbols`; trees remember nothing, so a step is a plain prediction. Not thread-safe."""

    def __init__(self, artifact: Artifact, symbols: Sequence[str]) -> None:
        self.symbols = distinct(symbols)
        self._artifact = artifact
        self._rows: NDArray[np.float32] = np.empty((len(symbols), len(artifact.inputs.features)), dtype=np.float32)

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None, *, open_time: datetime | None = None) -> Floats:
        """Predictions [symbols] for features [symbols, features]; NaN where a symbol is absent or fewer than half are known."""
        require_shape(values, (len(self.symbols), self._rows.shape[1]))
        with np.errstate(over="ignore"):
            np.copyto(self._rows, values, casting="same_kind")
        if present is None and np.isfinite(self._rows).all():
            return scored(self._artifact, self._rows)
        finite = np.isfinite(values)
        np.copyto(self._rows, np.clip(np.where(finite, values, np.nan), -LARGEST, LARGEST), casting="same_kind")
        known = finite.sum(axis=1) * 2 >= values.shape[1]
        return np.where(known if present is None else known & present, scored(self._artifact, self._rows), np.nan)
