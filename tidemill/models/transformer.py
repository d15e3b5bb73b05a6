"""The sequence engine: a small causal transformer over a symbol's own bars, trained with a loss at every position.

The network is in `transformer_network`. What scores is its cached step, one bar at a time, in a live session and over a
history alike, always on one thread and in blocks of 64 sequences; a row's prediction has the same bits in both, for any
batch, and for any history of at least `info.history` bars.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
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
    TrainingSet,
    decoded,
    inputs_of,
    predictions,
    require_layout,
    require_scoring,
    training_set,
)
from tidemill.validation.splits import rows_with_history

if TYPE_CHECKING:
    from tidemill.models.transformer_network import Block, Shape, Weights

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]

_LAYERS, _CONTEXT = 2, 64
_TRAINING_THREADS, _SCORING_THREADS = 2, 1
_SEGMENT = 3 * _CONTEXT
# torch's thread count and determinism are global, so only one fit or score at a time may set them.
_TORCH = threading.RLock()


class TransformerParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Training. Rows seen in all are about `passes` × the training rows, within `minimum_steps` and `maximum_steps`."""

    passes: Annotated[float, msgspec.Meta(gt=0.0, le=1_000.0)] = 4.0
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1e-3
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

        chosen = decoded(TransformerParams, params, self.info.name)
        data = training_set(training, features)
        scaling = Standardizer.fit(data)
        weights = _train(data, scaling.matrix(data.frame, features), chosen, seed)
        return make(
            inputs_of(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors={**scaling.tensors(), "output.scale": np.array([data.scale]), **{n: w.numpy() for n, w in weights.items()}},
            origin={"torch": torch.__version__},
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        scorer = _Scorer(artifact)
        rows = frame if start is None else rows_with_history(frame, start, self.info.history)
        values = scorer.range(scorer.scaling.matrix(rows, features), _runs(rows))
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

        from tidemill.models import transformer_network as network

        shape = network.Shape(inputs=len(artifact.inputs.features), layers=_LAYERS)
        layout = network.layout(shape)
        require_layout(artifact, {**layout, **Standardizer.layout(shape.inputs), "output.scale": (1,)})
        self.scaling = Standardizer.restore(artifact.tensors)
        self.lanes = network.BLOCK
        self._shape: Shape = shape
        self._scale = float(artifact.tensors["output.scale"][0])
        self._weights: Weights = {name: torch.from_numpy(artifact.tensors[name].astype(np.float32)) for name in layout}

    def block(self) -> Block:
        from tidemill.models import transformer_network as network

        return network.Block(self._weights, self._shape)

    def step(self, blocks: list[Block], inputs: Matrix, present: NDArray[np.bool_]) -> Floats:
        import torch

        made = np.empty(len(inputs))
        with _torch_settings(_SCORING_THREADS), torch.inference_mode():
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
        for first in range(0, len(ordered), self.lanes):
            rows = _lanes(ordered[first : first + self.lanes], self.lanes, padding=len(matrix))
            outputs = self._scan(padded, rows)
            inside = rows < len(matrix)
            made[rows[inside]] = outputs[inside]
        return made * self._scale

    def _scan(self, padded: Matrix, rows: Rows) -> Matrix:
        """Outputs [steps, lanes] of a fresh block over `rows` [steps, lanes]; what follows the end of a lane is not read."""
        import torch

        outputs = np.empty(rows.shape, dtype=np.float32)
        with _torch_settings(_SCORING_THREADS), torch.inference_mode():
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


def _runs(frame: pl.DataFrame) -> list[tuple[int, int]]:
    """(first, past-the-last) row of each symbol of a sorted panel."""
    if frame.is_empty():
        return []
    lengths = frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    stops = np.cumsum(lengths)
    return list(zip((stops - lengths).tolist(), stops.tolist(), strict=True))


def _train(data: TrainingSet, matrix: Matrix, params: TransformerParams, seed: int) -> Weights:
    """Weights after training on random segments of the symbols' sequences, on the CPU and deterministically."""
    import torch

    from tidemill.models import transformer_network as network

    shape = network.Shape(inputs=matrix.shape[1], layers=_LAYERS)
    batch, steps = _schedule(data.rows, params)
    segments = _segments(_runs(data.frame), batch, np.random.default_rng(seed), len(matrix))
    inputs = torch.from_numpy(np.concatenate([matrix, np.zeros((1, matrix.shape[1]), dtype=np.float32)]))
    target = torch.from_numpy(np.append(data.target, np.nan).astype(np.float32))
    with _torch_settings(_TRAINING_THREADS, seed=seed):
        weights = network.initial_weights(shape, seed)
        for weight in weights.values():
            weight.requires_grad_()
        matrices = [weight for weight in weights.values() if weight.ndim > 1]
        others = [weight for weight in weights.values() if weight.ndim == 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": params.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=params.learning_rate,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.learning_rate, total_steps=steps + 1, pct_start=0.15)
        for _ in range(steps):
            rows = torch.from_numpy(next(segments))
            wanted = target[rows]
            labelled = wanted.isfinite()
            output = network.forward(weights, shape, inputs[rows], params.dropout)
            loss = torch.where(labelled, output - wanted.nan_to_num(), 0.0).square().sum() / labelled.sum().clamp(min=1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
            optimizer.step()
            schedule.step()
    return {name: weight.detach() for name, weight in weights.items()}


def _schedule(rows: int, params: TransformerParams) -> tuple[int, int]:
    """(segments in a batch, steps): small data get small batches, so that there are enough steps."""
    batch = max(2, min(24, rows // 4_000))
    steps = round(params.passes * rows / (batch * _SEGMENT))
    return batch, max(params.minimum_steps, min(params.maximum_steps, steps))


def _segments(runs: list[tuple[int, int]], batch: int, chance: np.random.Generator, padding: int) -> Iterator[Rows]:
    """Endless batches of row numbers [batch, _SEGMENT]: stretches of one symbol each, every row about equally often."""
    firsts, stops = (np.array(ends, dtype=np.int64) for ends in zip(*runs, strict=True))
    lengths = stops - firsts
    while True:
        symbols = chance.choice(len(runs), size=batch, p=lengths / lengths.sum())
        # A start may fall before the first row and is moved there: else the first and last rows would be seen too rarely.
        starts = np.maximum(firsts[symbols], stops[symbols] - chance.integers(_CONTEXT, lengths[symbols] + _SEGMENT - _CONTEXT))
        rows = starts[:, None] + np.arange(_SEGMENT)
        yield np.where(rows < stops[symbols][:, None], rows, padding)


@contextmanager
def _torch_settings(threads: int, seed: int | None = None) -> Iterator[None]:
    """A fixed thread count, and for training a seed and deterministic algorithms; what was set before comes back."""
    import torch

    with _TORCH, torch.random.fork_rng(devices=[], enabled=seed is not None):
        threads_before, deterministic_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        torch.set_num_threads(threads)
        try:
            if seed is not None:
                torch.manual_seed(seed)
                torch.use_deterministic_algorithms(mode=True)
            yield
        finally:
            torch.use_deterministic_algorithms(mode=deterministic_before)
            torch.set_num_threads(threads_before)


ENGINE = Transformer()
