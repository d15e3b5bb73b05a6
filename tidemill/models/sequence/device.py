"""The transformer's parallel pass on a device of torch: on a GPU in bfloat16, fed from pinned memory.

A history is cut into windows of a fixed length that overlap by as many rows as a position looks back on, so every batch has
the same shape. The answer equals the compiled step's up to the rounding of the device's arithmetic.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from tidemill.models.artifact import Tensor
from tidemill.models.sequence.layers import Weights
from tidemill.models.sequence.network import forward
from tidemill.models.sequence.shape import CONTEXT, Shape, layout

WINDOW, OVERLAP = 8 * CONTEXT, 2 * CONTEXT  # OVERLAP is at least `Shape.history`
BATCH = 64
Rows = NDArray[np.int64]


def score(
    tensors: Mapping[str, Tensor], shape: Shape, matrix: NDArray[np.float32], runs: list[tuple[int, int]], device: str
) -> NDArray[np.float64]:
    """Outputs of the standardised rows [rows, features]; `runs` are the (first, past-the-last) rows of each symbol."""
    cuda = device.startswith("cuda")
    weights: Weights = {name: torch.from_numpy(tensors[name].astype(np.float32)).to(device) for name in layout(shape)}
    padded = np.concatenate([matrix, np.zeros((1, matrix.shape[1]), dtype=np.float32)])
    made = np.full(len(matrix), np.nan)
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda):
        for rows, wanted in _batches(runs, padding=len(matrix)):
            inputs = torch.from_numpy(padded[rows])
            if cuda:
                inputs = inputs.pin_memory().to(device, non_blocking=True)
            outputs = forward(weights, shape, inputs).float().cpu().numpy()
            made[rows[wanted]] = outputs[wanted]
    return made


def _batches(runs: list[tuple[int, int]], padding: int) -> Iterator[tuple[Rows, NDArray[np.bool_]]]:
    """Row numbers [BATCH, WINDOW], `padding` after the end of a symbol, and which of their outputs are wanted."""
    windows = list(_windows(runs))
    for first in range(0, len(windows), BATCH):
        part = windows[first : first + BATCH]
        rows = np.full((BATCH, WINDOW), padding, dtype=np.int64)
        wanted = np.zeros((BATCH, WINDOW), dtype=np.bool_)
        for lane, (start, stop, skipped) in enumerate(part):
            rows[lane, : stop - start] = np.arange(start, stop)
            wanted[lane, skipped : stop - start] = True
        yield rows, wanted


def _windows(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """(first row, past-the-last row, rows that only serve as history) of each window."""
    for first, stop in runs:
        start, skipped = first, 0
        while start + skipped < stop:
            end = min(start + WINDOW, stop)
            yield start, end, skipped
            start, skipped = end - OVERLAP, OVERLAP
