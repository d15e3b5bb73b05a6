"""The recurrent engine: a small GRU over a symbol's own bars, trained with a loss at every position.

The network is in `sequence.recurrent`. What scores is its cached step, one bar at a time, in a live session and over a history
alike, always on one thread and in blocks of 64 sequences; a row's prediction has the same bits in both, for any batch, and for
any history of at least `info.history` bars. The state forgets at fixed times, counted in bar lengths since 1970; the bar length
is that of the training rows.
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

from tidemill.domain.errors import InputError, IntegrityError
from tidemill.models.artifact import Artifact, make
from tidemill.models.base import (
    NO_LINEAGE,
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
from tidemill.models.sequence.threads import one_thread
from tidemill.validation.splits import rows_with_history

if TYPE_CHECKING:
    from tidemill.models.sequence.layers import Weights
    from tidemill.models.sequence.recurrent import States

Matrix = NDArray[np.float32]
Whole = NDArray[np.int64]

_SPAN = 64
_WORKERS = 2
_MICROSECONDS = 1_000_000
# Distances of bar times below this quantile are strays, such as one bar stamped a second late, and not the length of a bar.
_STRAYS = 0.05


class GruParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Training. Rows seen in all are about `passes` × the training rows, within `minimum_steps` and `maximum_steps`."""

    passes: Annotated[float, msgspec.Meta(gt=0.0, le=1_000.0)] = 3.0
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 2e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.05
    dropout: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.1
    minimum_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 40
    maximum_steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 160


class Gru:
    """Expected label from the last bars of the symbol itself; unknown features count as average."""

    libraries = ("torch",)  # it scores with what it was trained with
    info = EngineInfo(
        name="gru",
        kind="sequence",
        about="gated recurrent network, width 64, over the last 64 to 128 bars of a symbol",
        history=2 * _SPAN - 1,
        params=GruParams,
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

        from tidemill.models.sequence.recurrent import Recurrent
        from tidemill.models.sequence.training import train

        chosen = decoded(GruParams, params, self.info.name)
        data = training_set(training, features)
        scaling = Standardizer.fit(data)
        with one_thread():
            matrix, runs = scaling.matrix(data.frame, features), symbol_runs(data.frame)
            weights = train(Recurrent(inputs=len(features)), matrix, data.target, runs, chosen, seed)
        return make(
            training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage),
            tensors={
                **scaling.tensors(),
                "output.scale": np.array([data.scale]),
                "bar.seconds": np.array([_bar_seconds(data.frame["open_time"])]),
                **{name: weight.numpy() for name, weight in weights.items()},
            },
            origin={"torch": str(torch.__version__)},
        )

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        scorer = _Scorer(artifact)
        rows = frame if start is None else rows_with_history(frame, start, self.info.history)
        values = scorer.range(scorer.scaling.matrix(rows, features), scorer.windows(rows["open_time"]), symbol_runs(rows))
        return predictions(rows, values, features, start)

    def stream(self, artifact: Artifact, symbols: Sequence[str]) -> GruStream:
        """Scoring of bar after bar; see GruStream."""
        return GruStream(artifact, symbols)


class GruStream:
    """Live scoring: `step` takes the newest bar of every symbol and continues from the bars before it."""

    def __init__(self, artifact: Artifact, symbols: Sequence[str]) -> None:
        self.symbols = distinct(symbols)
        self._scorer = _Scorer(artifact)
        self._features = len(artifact.inputs.features)
        self._blocks = [self._scorer.block() for _ in range(-(-len(symbols) // self._scorer.lanes))]

    def step(self, values: Floats, present: NDArray[np.bool_] | None = None, *, open_time: datetime | None = None) -> Floats:
        """Predictions [symbols] for features [symbols, features] of the bar that opened at `open_time`, which must be given.

        NaN where a symbol is absent or fewer than half of its features are known. present: bool [symbols]; a symbol without a
        bar at this time keeps its state. None: all are present.
        """
        count, lanes = len(self.symbols), self._scorer.lanes
        require_shape(values, (count, self._features))
        if open_time is None:
            raise InputError("The engine gru resets its state at fixed times: pass the open_time of each bar.")
        there = np.ones(count, dtype=np.bool_) if present is None else present
        padded = np.zeros((len(self._blocks) * lanes, self._features), dtype=np.float32)
        padded[:count] = self._scorer.standardised(values)
        flags = np.zeros(len(padded), dtype=np.bool_)
        flags[:count] = there
        window = int(self._scorer.windows(pl.Series([open_time], dtype=pl.Datetime("us", "UTC")))[0])
        scored = self._scorer.step(self._blocks, padded, window, flags)[:count]
        known = np.isfinite(values).sum(axis=1) * 2 >= self._features
        return np.where(there & known, scored, np.nan)


class _Scorer:
    """The network of an artifact, ready to step."""

    def __init__(self, artifact: Artifact) -> None:
        import torch

        from tidemill.models.sequence.recurrent import BLOCK, Recurrent

        self._network = Recurrent(inputs=len(artifact.inputs.features))
        layout = self._network.layout()
        own = {"output.scale": (1,), "bar.seconds": (1,)}
        require_layout(artifact, {**layout, **Standardizer.layout(self._network.inputs), **own})
        self.scaling = Standardizer.restore(artifact.tensors)
        self.lanes = BLOCK
        self._scale = float(artifact.tensors["output.scale"][0])
        self._window = round(float(artifact.tensors["bar.seconds"][0]) * _MICROSECONDS) * _SPAN
        if self._window <= 0:
            raise IntegrityError(f"The model {artifact.model_id} does not state the length of a bar. Train it again.")
        self._weights: Weights = {name: torch.from_numpy(artifact.tensors[name].astype(np.float32)) for name in layout}

    def windows(self, open_times: pl.Series) -> Whole:
        """Number of the window that each bar lies in."""
        return open_times.dt.epoch("us").to_numpy() // self._window

    def standardised(self, values: Floats) -> Matrix:
        """float32 [rows, features] of features [rows, features]."""
        finite = np.where(np.isfinite(values), values, np.nan)
        return np.stack([self.scaling.column(j, finite[:, j]) for j in range(values.shape[1])], axis=1).astype(np.float32)

    def block(self) -> States:
        from tidemill.models.sequence.recurrent import States

        return States(self._weights, self._network)

    def step(self, blocks: list[States], inputs: Matrix, window: int, present: NDArray[np.bool_]) -> Floats:
        import torch

        made = np.empty(len(inputs))
        at = torch.full((self.lanes,), window)
        with one_thread(), torch.inference_mode():
            for number, block in enumerate(blocks):
                part = slice(number * self.lanes, (number + 1) * self.lanes)
                made[part] = block.step(torch.from_numpy(inputs[part]), at, torch.from_numpy(present[part])).numpy()
        return made * self._scale

    def range(self, matrix: Matrix, windows: Whole, runs: list[tuple[int, int]]) -> Floats:
        """Predictions of every row; `runs` are the (first, past-the-last) rows of each symbol."""
        made = np.full(len(matrix), np.nan)
        padded = np.concatenate([matrix, np.zeros((1, matrix.shape[1]), dtype=np.float32)])
        # Symbols of like length share a block, so that few steps are spent on padding.
        ordered = sorted(runs, key=lambda run: run[0] - run[1])
        parts = [ordered[first : first + self.lanes] for first in range(0, len(ordered), self.lanes)]
        lanes = [_lanes(part, self.lanes, padding=len(matrix)) for part in parts]
        scan = partial(self._scan, padded, np.append(windows, 0))
        with one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
            for rows, outputs in zip(lanes, pool.map(scan, lanes), strict=True):
                inside = rows < len(matrix)
                made[rows[inside]] = outputs[inside]
        return made * self._scale

    def _scan(self, padded: Matrix, windows: Whole, rows: Whole) -> Matrix:
        """Outputs [steps, lanes] of a fresh block over `rows` [steps, lanes]; what follows the end of a lane is not read."""
        import torch

        outputs = np.empty(rows.shape, dtype=np.float32)
        with torch.inference_mode():
            block = self.block()
            for number, lane_rows in enumerate(rows):
                inputs, window = torch.from_numpy(padded[lane_rows]), torch.from_numpy(windows[lane_rows])
                outputs[number] = block.step(inputs, window).numpy()
        return outputs


def _bar_seconds(open_times: pl.Series) -> float:
    """Length of a bar: the shortest distance of bar times, strays left out. One day where there is only one time."""
    distances = open_times.unique().sort().dt.epoch("us").diff().drop_nulls()
    shortest = distances.quantile(_STRAYS, "higher")
    return shortest / _MICROSECONDS if shortest else 86_400.0


def _lanes(runs: list[tuple[int, int]], lanes: int, padding: int) -> Whole:
    """Row numbers [steps, lanes]: a symbol's rows down its lane, then `padding`."""
    rows = np.full((max(stop - first for first, stop in runs), lanes), padding, dtype=np.int64)
    for lane, (first, stop) in enumerate(runs):
        rows[: stop - first, lane] = np.arange(first, stop)
    return rows


ENGINE = Gru()
