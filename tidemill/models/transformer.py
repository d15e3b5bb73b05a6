"""The sequence engine: a small causal transformer over a symbol's own bars, trained with a loss at every position.

The network is in `sequence.network`. What scores is its cached step, one bar at a time, in a live session and over a
history alike, always on one thread and in blocks of 64 sequences; a row's prediction has the same bits in both, for any
batch, and for any history of at least `info.history` bars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, make
from tidemill.models.base import (
    NO_LINEAGE,
    EngineInfo,
    Floats,
    Lineage,
    Standardizer,
    decoded,
    inputs_of,
    predictions,
    require_layout,
    require_scoring,
    symbol_runs,
    training_set,
)
from tidemill.models.sequence.threads import one_thread
from tidemill.validation.splits import rows_with_history

if TYPE_CHECKING:
    from tidemill.models.sequence.layers import Weights
    from tidemill.models.sequence.network import Block, Shape

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]

_LAYERS, _CONTEXT = 2, 64
_WORKERS = 2


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
        history=_LAYERS * (_CONTEXT - 1),
        params=TransformerParams,
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

        from tidemill.models.sequence.network import Shape
        from tidemill.models.sequence.training import train

        chosen = decoded(TransformerParams, params, self.info.name)
        data = training_set(training, features)
        scaling = Standardizer.fit(data)
        with one_thread():
            matrix, runs = scaling.matrix(data.frame, features), symbol_runs(data.frame)
            weights = train(Shape(inputs=len(features)), matrix, data.target, runs, chosen, seed)
        return make(
            inputs_of(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors={**scaling.tensors(), "output.scale": np.array([data.scale]), **{n: w.numpy() for n, w in weights.items()}},
            origin={"torch": str(torch.__version__)},
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        scorer = _Scorer(artifact)
        rows = frame if start is None else rows_with_history(frame, start, self.info.history)
        values = scorer.range(scorer.scaling.matrix(rows, features), symbol_runs(rows))
        return predictions(rows, values, features, start)


class TransformerStream:
    """Live scoring: `step` takes the newest bar of every symbol and continues from the bars before it."""

    def __init__(self, artifact: Artifact, symbols: Sequence[str]) -> None:
        if not symbols or len(set(symbols)) != len(symbols):
            raise InputError("A stream needs at least one symbol, and each only once.")
        self.symbols = tuple(symbols)
        self._scorer = _Scorer(artifact)
        self._features = len(artifact.inputs.features)
        self._blocks = [self._scorer.block() for _ in range(-(-len(symbols) // self._scorer.lanes))]

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None) -> Floats:
        """Predictions [symbols] for features [symbols, features]; NaN where a symbol is absent or fewer than half are known.

        present: bool [symbols]; a symbol without a bar at this time keeps its state. None: all are present.
        """
        count, lanes = len(self.symbols), self._scorer.lanes
        if values.shape != (count, self._features):
            raise InputError(f"The stream expects features of shape {(count, self._features)}, not {values.shape}.")
        there = np.ones(count, dtype=np.bool_) if present is None else present
        columns = [
            self._scorer.scaling.column(j, np.where(np.isfinite(values[:, j]), values[:, j], np.nan))
            for j in range(self._features)
        ]
        padded = np.zeros((len(self._blocks) * lanes, self._features), dtype=np.float32)
        padded[:count] = np.stack(columns, axis=1)
        flags = np.zeros(len(padded), dtype=np.bool_)
        flags[:count] = there
        scored = self._scorer.step(self._blocks, padded, flags)[:count]
        known = np.isfinite(values).sum(axis=1) * 2 >= self._features
        return np.where(there & known, scored, np.nan)


class _Scorer:
    """The network of an artifact, ready to step."""

    def __init__(self, artifact: Artifact) -> None:
        import torch

        from tidemill.models.sequence import network

        shape = network.Shape(inputs=len(artifact.inputs.features), layers=_LAYERS)
        layout = network.layout(shape)
        require_layout(artifact, {**layout, **Standardizer.layout(shape.inputs), "output.scale": (1,)})
        self.scaling = Standardizer.restore(artifact.tensors)
        self.lanes = network.BLOCK
        self._shape: Shape = shape
        self._scale = float(artifact.tensors["output.scale"][0])
        self._weights: Weights = {name: torch.from_numpy(artifact.tensors[name].astype(np.float32)) for name in layout}

    def block(self) -> Block:
        from tidemill.models.sequence import network

        return network.Block(self._weights, self._shape)

    def step(self, blocks: list[Block], inputs: Matrix, present: NDArray[np.bool_]) -> Floats:
        import torch

        made = np.empty(len(inputs))
        with one_thread(), torch.inference_mode():
            for number, block in enumerate(blocks):
                part = slice(number * self.lanes, (number + 1) * self.lanes)
                made[part] = block.step(torch.from_numpy(inputs[part]), torch.from_numpy(present[part])).numpy()
        return made * self._scale

    def range(self, matrix: Matrix, runs: list[tuple[int, int]]) -> Floats:
        """Predictions of every row; `runs` are the (first, past-the-last) rows of each symbol."""
        made = np.full(len(matrix), np.nan)
        padded = np.concatenate([matrix, np.zeros((1, matrix.shape[1]), dtype=np.float32)])
        # Symbols of like length share a block, so that few steps are spent on padding.
        ordered = sorted(runs, key=lambda run: run[0] - run[1])
        parts = [ordered[first : first + self.lanes] for first in range(0, len(ordered), self.lanes)]
        lanes = [_lanes(part, self.lanes, padding=len(matrix)) for part in parts]
        with one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
            for rows, outputs in zip(lanes, pool.map(partial(self._scan, padded), lanes), strict=True):
                inside = rows < len(matrix)
                made[rows[inside]] = outputs[inside]
        return made * self._scale

    def _scan(self, padded: Matrix, rows: Rows) -> Matrix:
        """Outputs [steps, lanes] of a fresh block over `rows` [steps, lanes]; what follows the end of a lane is not read."""
        import torch

        outputs = np.empty(rows.shape, dtype=np.float32)
        with torch.inference_mode():
            block = self.block()
            for number, lane_rows in enumerate(rows):
                outputs[number] = block.step(torch.from_numpy(padded[lane_rows])).numpy()
        return outputs


def _lanes(runs: list[tuple[int, int]], lanes: int, padding: int) -> Rows:
    """Row numbers [steps, lanes]: a symbol's rows down its lane, then `padding`."""
    rows = np.full((max(stop - first for first, stop in runs), lanes), padding, dtype=np.int64)
    for lane, (first, stop) in enumerate(runs):
        rows[: stop - first, lane] = np.arange(first, stop)
    return rows


ENGINE = Transformer()
