"""LightGBM's trees bar after bar, through its C library: `Booster.predict` spends four times as long on the way there.

One row goes through the library's single-row call, prepared once; several go through its matrix call. Both give the bits of
`Booster.predict`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import InputError, StopError
from tidemill.models.artifact import Artifact
from tidemill.models.base import Floats
from tidemill.models.gradient_boosting import LARGEST, booster_of

_NORMAL, _FLOAT32, _ROW_MAJOR = 0, 0, 1  # C_API_PREDICT_NORMAL, C_API_DTYPE_FLOAT32
# Two threads share the rows of a matrix; a row's own sum is always one thread's, so its bits stay.
_PARAMETERS = b"num_threads=2 predict_disable_shape_check=false"


class TreesStream:
    """Live scoring of `symbols`; trees remember nothing, so a step is a plain prediction. Not thread-safe."""

    def __init__(self, artifact: Artifact, symbols: Sequence[str]) -> None:
        from lightgbm.basic import _LIB  # type: ignore[attr-defined]  # the only way to the C library from Python

        if not symbols or len(set(symbols)) != len(symbols):
            raise InputError("A stream needs at least one symbol, and each only once.")
        self.symbols = tuple(symbols)
        self._library = _LIB
        self._booster = booster_of(artifact)  # its handle is freed with it
        self._handle = self._booster._handle
        count, width = len(symbols), len(artifact.inputs.features)
        self._rows: NDArray[np.float32] = np.empty((count, width), dtype=np.float32)
        self._scored = np.empty(count, dtype=np.float64)
        self._length = ctypes.c_int64(0)
        self._data = ctypes.c_void_p(self._rows.ctypes.data)
        self._answer = self._scored.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        self._single = self._prepared(width) if count == 1 else None

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None) -> Floats:
        """Predictions [symbols] for features [symbols, features]; NaN where a symbol is absent or fewer than half are known."""
        if values.shape != self._rows.shape:
            raise InputError(f"The stream expects features of shape {self._rows.shape}, not {values.shape}.")
        with np.errstate(over="ignore"):
            np.copyto(self._rows, values, casting="same_kind")
        if present is None and np.isfinite(self._rows).all():
            self._score()
            return self._scored.copy()
        finite = np.isfinite(values)
        np.copyto(self._rows, np.clip(np.where(finite, values, np.nan), -LARGEST, LARGEST), casting="same_kind")
        self._score()
        known = finite.sum(axis=1) * 2 >= values.shape[1]
        return np.where(known if present is None else known & present, self._scored, np.nan)

    def _score(self) -> None:
        if self._single is not None:
            done = self._library.LGBM_BoosterPredictForMatSingleRowFast(
                self._single, self._data, ctypes.byref(self._length), self._answer
            )
        else:
            done = self._library.LGBM_BoosterPredictForMat(
                self._handle, self._data, _FLOAT32, *map(ctypes.c_int32, self._rows.shape), _ROW_MAJOR, _NORMAL, 0, -1,
                _PARAMETERS, ctypes.byref(self._length), self._answer,
            )  # fmt: skip
        self._require(done)

    def _prepared(self, width: int) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        done = self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
            self._handle, _NORMAL, 0, -1, _FLOAT32, ctypes.c_int32(width), _PARAMETERS, ctypes.byref(made)
        )
        self._require(done)
        return made

    def _require(self, done: int) -> None:
        if done != 0:
            text = self._library.LGBM_GetLastError().decode(errors="replace")
            raise StopError(f"LightGBM could not score: {text}. Train the model again.")

    def __del__(self) -> None:
        single = getattr(self, "_single", None)
        if single is not None:
            self._library.LGBM_FastConfigFree(single)
