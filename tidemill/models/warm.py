"""Compiling ahead of the first run: set-up calls this, so that nobody waits for it later."""

from __future__ import annotations


def warm() -> None:
    """Compile the kernels that score into the cache (half a minute; a second when they are there)."""
    import numpy as np

    from tidemill.models.sequence import kernel
    from tidemill.models.sequence.shape import CONTEXT, Shape, layer_layout
    from tidemill.models.trees import kernel as trees_kernel

    shape = Shape(inputs=1)
    zeros = [np.zeros((shape.layers, *size), np.float32) for size in layer_layout(shape).values()]
    wide = np.zeros(shape.width, np.float32)
    ends = kernel.Ends(np.zeros((1, shape.width), np.float32), wide, wide, wide, wide, np.zeros(1, np.float32))
    one = np.ones(1)
    scaling = kernel.Scaling(one, one, one, one, 1.0, 1.0)
    state = (1, shape.layers, shape.heads, shape.head_width, CONTEXT)
    keys, values = np.zeros(state, np.float32), np.zeros((*state[:3], CONTEXT, shape.head_width), np.float32)
    rows, made = np.zeros((1, 1)), np.zeros(1)
    present, seen, stop = np.ones(1, np.bool_), np.zeros(1, np.int64), np.ones(1, np.int64)
    kernel.scan(rows, seen, stop, scaling, kernel.Layers(*zeros), ends, made)
    kernel.step(rows, present, scaling, kernel.Layers(*zeros), ends, keys, values, seen, made)
    none = np.zeros(1, np.int64)
    trees_kernel.score(np.zeros((1, 1), np.float32), none, none, none.astype(np.uint64), np.zeros(1, np.float32), one, made)
