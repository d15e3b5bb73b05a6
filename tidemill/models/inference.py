"""Scoring behind one call, whatever the engine and the device: `predict_batch` for rows, `stream` for bar after bar.

A row's prediction does not depend on the rows beside it, and both calls give the same bits on a CPU. A GPU is asked for by
name: its arithmetic rounds differently, so what it scored cannot be repeated bit for bit by a live session on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact
from tidemill.models.base import Engine, Floats, RowScorer, distinct, require_shape
from tidemill.models.recent import Recent
from tidemill.models.registry import SHIPPED_ENGINES, Engines

CPU, CUDA, AUTO = "cpu", "cuda", "auto"


@runtime_checkable
class Accelerated(Protocol):
    """An engine that can also score on a device of torch."""

    def predict_on(
        self, device: str, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None
    ) -> pl.DataFrame: ...


class ModelStream(Protocol):
    """Scores the newest bar of every symbol and remembers what it needs of it."""

    @property
    def symbols(self) -> tuple[str, ...]: ...

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None, *, open_time: datetime | None = None) -> Floats:
        """Predictions [symbols] for features [symbols, features]; NaN where a symbol is absent or fewer than half are known.

        open_time: of the bar (UTC), for engines whose memory counts time; the others do not look at it.
        """
        ...


@runtime_checkable
class ByRows(Protocol):
    """An engine that scores rows of features as they are, without a frame."""

    def row_scorer(self, artifact: Artifact) -> RowScorer: ...


@runtime_checkable
class Streaming(Protocol):
    """An engine with a stream of its own."""

    def stream(self, artifact: Artifact, symbols: Sequence[str]) -> ModelStream: ...


def predict_batch(
    artifact: Artifact,
    frame: pl.DataFrame,
    *,
    start: datetime | None = None,
    device: str = CPU,
    known: Engines = SHIPPED_ENGINES,
) -> pl.DataFrame:
    """`symbol, open_time, prediction` by the engine of `artifact`; see `Engine.predict`.

    device: `cpu`, `cuda` (bfloat16, from pinned memory) or `auto`, which takes a GPU where there is one. Engines that have no
    use for a GPU score on the CPU. known: where the engine is found. Raises InputError for an unknown device, and for `cuda`
    where there is none.
    """
    one = known.find(artifact.inputs.engine)
    chosen = device_named(device) if device != CPU and isinstance(one, Accelerated) else require_device(device)
    if chosen == CUDA and isinstance(one, Accelerated):
        return one.predict_on(CUDA, artifact, frame, start=start)
    return one.predict(artifact, frame, start=start)


def stream(artifact: Artifact, symbols: Sequence[str], known: Engines = SHIPPED_ENGINES) -> ModelStream:
    """Live scoring of `symbols` on the CPU, with the bits of `predict_batch`. InputError when the engine cannot stream.

    known: where the engine is found.
    """
    one = known.find(artifact.inputs.engine)
    if isinstance(one, Streaming):
        return one.stream(artifact, symbols)
    own = distinct(symbols)
    if isinstance(one, ByRows):
        return RowStream(artifact, own, one.row_scorer(artifact))
    if not can_step(one):
        raise InputError(f"The engine {one.info.name} remembers bars and has no stream; score its rows with predict_batch.")
    return FrameStream(artifact, own, one)


def can_step(one: Engine) -> bool:
    """Whether an engine can be asked bar by bar: by its own stream, by rows, or by its tail where it remembers bars."""
    return isinstance(one, Streaming | ByRows) or not one.info.history or bool(getattr(one, "by_tail", 0))


def require_device(name: str) -> str:
    """`cpu` for an engine that has no use for another device; InputError when there is no such device by name."""
    if name not in (CPU, CUDA, AUTO):
        raise InputError(f"There is no device {name!r}. Choose cpu, cuda or auto.")
    return CPU


@cache
def device_named(name: str) -> str:
    """`cpu` or `cuda`, decided once in a process."""
    require_device(name)
    if name == CPU:
        return CPU
    import torch

    if torch.cuda.is_available():
        return CUDA
    if name == CUDA:
        raise InputError("There is no GPU that torch can use here. Choose the device cpu, or auto.")
    return CPU


class RowStream:
    """The stream of an engine whose prediction depends on its own row alone."""

    def __init__(self, artifact: Artifact, symbols: Sequence[str], score: RowScorer) -> None:
        self.symbols = tuple(symbols)
        self._shape, self.score = (len(symbols), len(artifact.inputs.features)), score

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None, *, open_time: datetime | None = None) -> Floats:
        require_shape(values, self._shape)
        scored = self.score(values)
        return scored if present is None else np.where(present, scored, np.nan)


class FrameStream:
    """The stream of an engine that knows frames alone: it is given the rows of a bar, behind those that they look back at."""

    def __init__(self, artifact: Artifact, symbols: Sequence[str], engine: Engine) -> None:
        self._artifact, self._engine, self._features = artifact, engine, artifact.inputs.features
        self.symbols, self._order = tuple(symbols), np.argsort(np.array(symbols))  # a panel is sorted by symbol
        self._recent = Recent(sorted(symbols), len(self._features))
        self._recent.keep(engine.info.history + 1)

    def remember(self, values: Floats, present: NDArray[np.bool_], open_time: datetime) -> None:
        """Take a bar, of which nothing is asked."""
        require_shape(values, (len(self.symbols), len(self._features)))
        self._recent.push(np.asarray(values, dtype=np.float64)[self._order], present[self._order], open_time)

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None, *, open_time: datetime | None = None) -> Floats:
        """See ModelStream; `open_time` must be given, since a frame has a column of it."""
        require_shape(values, (len(self.symbols), len(self._features)))
        if open_time is None:
            raise InputError(f"The engine {self._engine.info.name} sees the times of bars: pass the open_time of each.")
        there = np.ones(len(self.symbols), dtype=np.bool_) if present is None else present
        self.remember(values, there, open_time)
        made = np.full(len(self.symbols), np.nan)
        if there.any():
            rows = self._recent.rows(self._engine.info.history + 1, there[self._order]).frame(self._features)
            said = self._engine.predict(self._artifact, rows, start=open_time)["prediction"]
            made[self._order[there[self._order]]] = said.fill_null(float("nan")).to_numpy()
        return made


def warm(model: ModelStream, values: Floats, present: NDArray[np.bool_], open_time: datetime) -> None:
    """Let a stream take a bar that it is to look back at; what it would say of it is not asked where that costs a call."""
    if isinstance(model, FrameStream):
        model.remember(values, present, open_time)
    else:
        model.step(values, present, open_time=open_time)
