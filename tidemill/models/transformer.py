"""The sequence engine: a small causal transformer over a symbol's own bars, trained with a loss at every position.

The network is in `sequence.network`. What scores is its cached step, compiled (`sequence.kernel`), one bar at a time, in a
live session and over a history alike; a row's prediction has the same bits in both, for any batch, and for any history of at
least `info.history` bars. torch is imported to train, and to score on a GPU, only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.models.artifact import Artifact, Tensor, make
from tidemill.models.base import (
    NO_LINEAGE,
    SCALED_LIMIT,
    Dimension,
    EngineInfo,
    Floats,
    Lineage,
    Standardizer,
    decoded,
    distinct,
    predictions,
    require_layout,
    require_scoring,
    require_shape,
    symbol_runs,
    training_inputs,
    training_set,
)
from tidemill.models.sequence.shape import CONTEXT, Shape, layer_layout, layout
from tidemill.models.sequence.threads import one_thread
from tidemill.validation.splits import rows_with_history

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]

_LAYERS = 2
_WORKERS = 2
# Symbols from which on a second thread saves more than it costs to wake it.
_WORTH_TWO = 64
# Rows that one call to the compiled step scores at most, unless a symbol alone has more.
_BATCH = 4_096
_ENDS = ("embed.weight", "embed.bias", "final_norm.gain", "final_norm.bias", "head.weight", "head.bias")


class TransformerParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Training. Rows seen in all are about `passes` × the training rows, within `minimum_steps` and `maximum_steps`."""

    passes: Annotated[float, msgspec.Meta(gt=0.0, le=1_000.0)] = 3.0
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 2e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.05
    dropout: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.1
    minimum_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 40
    maximum_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 160


class Transformer:
    """Expected label from the last bars of the symbol itself; unknown features count as average."""

    info = EngineInfo(
        name="transformer",
        kind="sequence",
        about="causal transformer, 2 layers, width 64, over the last 64 bars of a symbol",
        history=Shape(1, layers=_LAYERS).history,
        params=TransformerParams,
        space=(
            Dimension("passes", 1.0, 10.0, log=True),
            Dimension("learning_rate", 3e-4, 1e-2, log=True),
            Dimension("weight_decay", 1e-3, 1.0, log=True),
            Dimension("dropout", 0.0, 0.5),
        ),
    )

    def fit(
        self,
        training: pl.DataFrame,
        *,
        features: tuple[str, ...],
        params: Mapping[str, Any],
        seed: int,
        lineage: Lineage = NO_LINEAGE,
    ) -> Artifact:
        import torch

        from tidemill.models.sequence.network import Network
        from tidemill.models.sequence.training import train

        chosen = decoded(TransformerParams, params, self.info.name)
        data = training_set(training, features)
        scaling = Standardizer.fit(data)
        with one_thread():
            matrix, runs = scaling.matrix(data.frame, features), symbol_runs(data.frame)
            weights = train(Network(inputs=len(features)), matrix, data.target, runs, chosen, seed)
        return make(
            training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors={**scaling.tensors(), "output.scale": np.array([data.scale]), **{n: w.numpy() for n, w in weights.items()}},
            origin={"torch": str(torch.__version__)},
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        network = _restored(artifact)
        rows = frame if start is None else rows_with_history(frame, start, self.info.history)
        inputs = rows.select(features)
        scan = partial(_scan, network, inputs)
        with ThreadPoolExecutor(_WORKERS) as pool:
            scored = list(pool.map(scan, _batches(symbol_runs(rows))))
        return predictions(rows, np.concatenate(scored) if scored else np.zeros(0), features, start)

    def predict_on(
        self, device: str, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None
    ) -> pl.DataFrame:
        """As `predict`, by the parallel pass on a device of torch: equal to `predict` but for rounding."""
        from tidemill.models.sequence.device import score

        features = require_scoring(artifact, frame, self.info.name)
        _restored(artifact)
        rows = frame if start is None else rows_with_history(frame, start, self.info.history)
        matrix = Standardizer.restore(artifact.tensors).matrix(rows, features)
        scored = score(artifact.tensors, Shape(len(features), layers=_LAYERS), matrix, symbol_runs(rows), device)
        return predictions(rows, scored * float(artifact.tensors["output.scale"][0]), features, start)

    def stream(self, artifact: Artifact, symbols: Sequence[str]) -> TransformerStream:
        """Scoring of bar after bar; see TransformerStream."""
        return TransformerStream(artifact, symbols)


class TransformerStream:
    """Live scoring: `step` takes the newest bar of every symbol and continues from the bars before it."""

    def __init__(self, artifact: Artifact, symbols: Sequence[str]) -> None:
        self.symbols = distinct(symbols)
        self._network = _restored(artifact)
        self._features = len(artifact.inputs.features)
        self._parts = [self._network.part(*bounds) for bounds in _shares(len(symbols))]
        self._pool = ThreadPoolExecutor(_WORKERS) if len(self._parts) > 1 else None

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None, *, open_time: datetime | None = None) -> Floats:
        """Predictions [symbols] for features [symbols, features]; NaN where a symbol is absent or fewer than half are known.

        present: bool [symbols]; a symbol without a bar at this time keeps its state. None: all are present.
        """
        count = len(self.symbols)
        require_shape(values, (count, self._features))
        rows = np.ascontiguousarray(values, dtype=np.float64)
        there = np.ones(count, dtype=np.bool_) if present is None else np.ascontiguousarray(present, dtype=np.bool_)
        made = np.empty(count)
        work = partial(self._network.step, rows, there, made)
        if self._pool is None:
            work(self._parts[0])
        else:
            list(self._pool.map(work, self._parts))
        return made


class _Part:
    """State of the symbols `first` to `stop` of a stream."""

    def __init__(self, first: int, stop: int, depth: int) -> None:
        self.rows = slice(first, stop)
        shape = Shape(1)
        self.keys = np.zeros((stop - first, depth, shape.heads, shape.head_width, CONTEXT), dtype=np.float32)
        self.values = np.zeros((stop - first, depth, shape.heads, CONTEXT, shape.head_width), dtype=np.float32)
        self.seen = np.zeros(stop - first, dtype=np.int64)


class _Network:
    """The weights of an artifact as the compiled step wants them."""

    def __init__(self, artifact: Artifact) -> None:
        from tidemill.models.sequence import kernel

        tensors = artifact.tensors
        self._kernel = kernel
        own = Standardizer.restore(tensors)
        scale = float(tensors["output.scale"][0])
        self._scaling = kernel.Scaling(own.lower, own.upper, own.mean, own.deviation, SCALED_LIMIT, scale)
        names = layer_layout(Shape(1))
        self._layers = kernel.Layers(
            *(np.stack([_single(tensors[f"layer{layer}.{name}"]) for layer in range(_LAYERS)]) for name in names)
        )
        self._ends = kernel.Ends(*(_single(tensors[name]) for name in _ENDS))

    def part(self, first: int, stop: int) -> _Part:
        return _Part(first, stop, _LAYERS)

    def step(self, rows: Floats, present: NDArray[np.bool_], out: Floats, part: _Part) -> None:
        own = part.rows
        weights = (self._scaling, self._layers, self._ends)
        self._kernel.step(rows[own], present[own], *weights, part.keys, part.values, part.seen, out[own])

    def scan(self, rows: Floats, firsts: Rows, stops: Rows) -> Floats:
        """Predictions of `rows` [rows, features] of some symbols, the first row of each of which has nothing before it."""
        made = np.empty(len(rows))
        self._kernel.scan(rows, firsts, stops, self._scaling, self._layers, self._ends, made)
        return made


def _scan(network: _Network, inputs: pl.DataFrame, runs: list[tuple[int, int]]) -> Floats:
    """Predictions of the symbols `runs`, which stand one after the other in `inputs`."""
    first, stop = runs[0][0], runs[-1][1]
    rows = np.ascontiguousarray(inputs[first:stop].cast(pl.Float64).to_numpy(), dtype=np.float64)
    ends = np.array(runs, dtype=np.int64) - first
    return network.scan(rows, np.ascontiguousarray(ends[:, 0]), np.ascontiguousarray(ends[:, 1]))


def _batches(runs: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The symbols in parts of some thousand rows: enough to be worth a call, few enough to lie in the cache."""
    parts: list[list[tuple[int, int]]] = []
    for run in runs:
        if not parts or run[1] - parts[-1][0][0] > _BATCH:
            parts.append([])
        parts[-1].append(run)
    return parts


def _restored(artifact: Artifact) -> _Network:
    shape = Shape(inputs=len(artifact.inputs.features), layers=_LAYERS)
    require_layout(artifact, {**layout(shape), **Standardizer.layout(shape.inputs), "output.scale": (1,)})
    return _Network(artifact)


def _single(tensor: Tensor) -> Matrix:
    return np.ascontiguousarray(tensor, dtype=np.float32)


def _shares(count: int) -> list[tuple[int, int]]:
    """(first, past-the-last) symbol of each worker; few symbols are not worth a second one."""
    workers = _WORKERS if count >= _WORTH_TWO else 1
    return [(count * worker // workers, count * (worker + 1) // workers) for worker in range(workers)]


ENGINE = Transformer()
