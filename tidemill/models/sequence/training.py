"""Training of a sequence network: random segments of the symbols' sequences, AdamW, one learning-rate cycle.

Each step's batch is halved over two threads, which meet once a step; torch itself keeps to one thread in each. The two
gradients are added in a fixed order, so the same seed and rows give the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import cos, pi, prod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.models.sequence.layers import Dropout, Layout, Weights, dropout

_WORKERS = 2
_WARMUP = 0.15
_BETAS, _EPSILON, _LARGEST_GRADIENT = (0.9, 0.99), 1e-8, 1.0


class Trainable(Protocol):
    """A causal network: what it is made of and the parallel pass that trains it.

    segment: positions of a training sequence. shortest: positions of a symbol that a segment holds at least, where it has them.
    batch: segments of a step on large data.
    """

    @property
    def segment(self) -> int: ...

    @property
    def shortest(self) -> int: ...

    @property
    def batch(self) -> int: ...

    def layout(self) -> Layout: ...

    def initial(self, generator: torch.Generator) -> Weights: ...

    def forward(self, weights: Weights, x: Tensor, drop: Dropout) -> Tensor:
        """Outputs [B, T] for inputs [B, T, F]; position t sees nothing after t."""
        ...


class TrainingParams(Protocol):
    """Rows seen in all are about `passes` × the training rows, within `minimum_steps` and `maximum_steps`."""

    @property
    def passes(self) -> float: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def dropout(self) -> float: ...

    @property
    def minimum_steps(self) -> int: ...

    @property
    def maximum_steps(self) -> int: ...


def train(
    network: Trainable,
    matrix: NDArray[np.float32],
    target: NDArray[np.float64],
    runs: list[tuple[int, int]],
    params: TrainingParams,
    seed: int,
) -> Weights:
    """Weights trained on standardised rows [rows, features] towards `target` [rows], NaN where there is none.

    runs: (first, past-the-last) row of each symbol. The caller has set torch to one thread.
    """
    generators = [torch.Generator().manual_seed(seed + worker) for worker in range(_WORKERS)]
    flat = torch.cat([weight.flatten() for weight in network.initial(generators[0]).values()])
    optimizer = _AdamW(flat, _decayed(network.layout()) * params.weight_decay)
    # One row more, which padding points to.
    inputs = torch.from_numpy(np.concatenate([matrix, np.zeros((1, matrix.shape[1]), dtype=np.float32)]))
    wanted = torch.from_numpy(np.append(target, np.nan).astype(np.float32))
    gradient = partial(_gradient, network, flat, inputs, wanted)
    drops = [dropout(params.dropout, generator) for generator in generators]
    batch, steps = schedule(int(np.isfinite(target).sum()), network, params)
    batches = segments(runs, batch, network, np.random.default_rng(seed), padding=len(matrix))
    with ThreadPoolExecutor(_WORKERS) as pool:
        for step in range(steps):
            halves = torch.from_numpy(next(batches)).chunk(_WORKERS)
            parts = list(pool.map(gradient, halves, drops))
            count = max(1, sum(labelled for _, labelled in parts))
            total = torch.stack([part for part, _ in parts]).sum(0) / count
            optimizer.step(total, params.learning_rate * _cycle(step / steps))
    return _unflattened(flat, network.layout())


def schedule(rows: int, network: Trainable, params: TrainingParams) -> tuple[int, int]:
    """(segments in a batch, steps): small data get small batches, so that there are enough steps."""
    batch = max(_WORKERS, min(network.batch, network.batch * rows // 96_000))
    steps = round(params.passes * rows / (batch * network.segment))
    return batch, max(params.minimum_steps, min(params.maximum_steps, steps))


def segments(
    runs: list[tuple[int, int]], batch: int, network: Trainable, chance: np.random.Generator, padding: int
) -> Iterator[NDArray[np.int64]]:
    """Endless batches of row numbers [batch, segment]: stretches of one symbol each, every row about equally often."""
    firsts, stops = (np.array(ends, dtype=np.int64) for ends in zip(*runs, strict=True))
    lengths, segment, shortest = stops - firsts, network.segment, network.shortest
    while True:
        symbols = chance.choice(len(runs), size=batch, p=lengths / lengths.sum())
        # A start may fall before the first row and is moved there: else the first and last rows would be seen too rarely.
        starts = np.maximum(firsts[symbols], stops[symbols] - chance.integers(shortest, lengths[symbols] + segment - shortest))
        rows = starts[:, None] + np.arange(segment)
        yield np.where(rows < stops[symbols][:, None], rows, padding)


def _gradient(
    network: Trainable, flat: Tensor, inputs: Tensor, wanted: Tensor, rows: Tensor, drop: Dropout
) -> tuple[Tensor, int]:
    """Gradient of the summed squared error over the labelled positions of `rows`, and their number."""
    leaf = flat.detach().requires_grad_()
    target = wanted[rows]
    labelled = target.isfinite()
    output = network.forward(_unflattened(leaf, network.layout()), inputs[rows], drop)
    loss = torch.where(labelled, output - target.nan_to_num(), 0.0).square().sum()
    return torch.autograd.grad(loss, leaf)[0], int(labelled.sum())


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019) on one flat vector, the gradient's norm bounded."""

    def __init__(self, flat: Tensor, decay: Tensor) -> None:
        self._flat, self._decay = flat, decay
        self._mean, self._square = torch.zeros_like(flat), torch.zeros_like(flat)
        self._count = 0

    def step(self, gradient: Tensor, rate: float) -> None:
        self._count += 1
        gradient = gradient * (_LARGEST_GRADIENT / (gradient.norm() + 1e-6)).clamp(max=1.0)
        first, second = _BETAS
        self._mean.mul_(first).add_(gradient, alpha=1.0 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        mean = self._mean / (1.0 - first**self._count)
        spread = (self._square / (1.0 - second**self._count)).sqrt_().add_(_EPSILON)
        self._flat.mul_(1.0 - rate * self._decay).addcdiv_(mean, spread, value=-rate)


def _cycle(done: float) -> float:
    """Share of the learning rate after a share `done` of the steps: linear warm-up, then half a cosine to zero."""
    return (done + 1e-3) / (_WARMUP + 1e-3) if done < _WARMUP else 0.5 * (1.0 + cos(pi * (done - _WARMUP) / (1.0 - _WARMUP)))


def _decayed(layout: Layout) -> Tensor:
    """1 for the numbers of matrices, 0 for biases and gains."""
    return torch.cat([torch.full((prod(size),), 1.0 if len(size) > 1 else 0.0) for size in layout.values()])


def _unflattened(flat: Tensor, layout: Layout) -> Weights:
    parts = torch.split(flat, [prod(size) for size in layout.values()])
    return {name: part.view(size) for (name, size), part in zip(layout.items(), parts, strict=True)}
