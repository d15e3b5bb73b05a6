"""LightGBM's trees as arrays for the kernel that scores rows (`trees/kernel.py`), from the text of a model.

The two children of a node stand side by side, so that a comparison leads to the next node without a branch, and a leaf leads
to itself. Rows are float32: a threshold is rounded down to one, which divides float32 numbers as the float64 does. Each feature
has two numbers in a row, equal unless it is missing: then the first lies below every threshold and the second above, and a node
reads the one that goes where LightGBM sends what is missing.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidemill.models.base import Floats
from tidemill.models.trees.text import MISSING_IS_NAN, MISSING_KIND, MISSING_LEFT, Tree, trees

Numbers: TypeAlias = NDArray[np.float32]
LARGEST = 1e38  # of a feature's value: beyond it a float32 is infinite
_GREATEST = np.finfo(np.float32).max  # an infinite threshold must still lie below what is missing
_CHILD_BITS = 32


class Table(msgspec.Struct, frozen=True, eq=False):
    """roots, depths: of each tree. branches: first child · 2³² + place in a row, thresholds, values of leaves: by node."""

    roots: NDArray[np.int64]
    depths: NDArray[np.int64]
    branches: NDArray[np.uint64]
    thresholds: Numbers
    values: Floats


@lru_cache(maxsize=8)
def table(text: str, features: int) -> Table:
    """The trees over `features` columns. Raises IntegrityError for a text that does not hold such trees."""
    made = [_laid_out(tree) for tree in trees(text, features=features)]
    roots = np.cumsum([0, *(len(values) for _, _, _, _, values in made)])[:-1]
    children = np.concatenate([child + root for root, (_, child, _, _, _) in zip(roots, made, strict=True)])
    places = np.concatenate([place for _, _, place, _, _ in made])
    return Table(
        roots,
        np.array([depth for depth, *_ in made], dtype=np.int64),
        children.astype(np.uint64) << np.uint64(_CHILD_BITS) | places.astype(np.uint64),
        np.concatenate([threshold for _, _, _, threshold, _ in made]),
        np.concatenate([values for _, _, _, _, values in made]),
    )


_Layout: TypeAlias = tuple[int, NDArray[np.int64], NDArray[np.int64], Numbers, Floats]


def _laid_out(tree: Tree) -> _Layout:
    """Depth, and of each node, from the root downwards: first child, place in a row, threshold, value."""
    nodes = list(_downwards(tree))
    depth, count, splits = nodes[-1][1], len(nodes), len(tree.left)
    order = np.array([node for node, _ in nodes], dtype=np.int64)
    inner = order >= 0
    child = np.arange(count, dtype=np.int64)
    child[inner] = 1 + 2 * np.arange(splits)  # nodes are numbered as they are reached: two for each split before
    chosen = order[inner]
    kind = np.array(tree.kind, dtype=np.int64)[chosen]
    exact = np.array(tree.threshold, dtype=np.float64)[chosen]
    missing_right = np.where(kind & MISSING_KIND == MISSING_IS_NAN, kind & MISSING_LEFT == 0, exact < 0.0)
    place, threshold, values = np.zeros(count, dtype=np.int64), np.full(count, np.inf, dtype=np.float32), np.zeros(count)
    place[inner] = 2 * np.array(tree.feature, dtype=np.int64)[chosen] + missing_right
    threshold[inner] = _rounded_down(exact)
    values[~inner] = np.array(tree.leaf)[-1 - order[~inner]]
    return depth, child, place, threshold, values


def _downwards(tree: Tree) -> Iterator[tuple[int, int]]:
    """(node, depth) level by level, siblings together; a leaf is -1 - its number."""
    level, depth = [0 if tree.left else -1], 0
    while level:
        for node in level:
            yield node, depth
        level = [child for node in level if node >= 0 for child in (tree.left[node], tree.right[node])]
        depth += 1


def _rounded_down(exact: Floats) -> Numbers:
    with np.errstate(over="ignore"):
        near = exact.astype(np.float32)
    down = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return np.minimum(down, _GREATEST)
