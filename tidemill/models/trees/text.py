"""LightGBM's text format, read with mistrust: its own parser, which trusts offsets and indices, never sees a stored model.

The file is `key=value` lines: a header whose `tree_sizes` are the byte lengths of the trees, the trees, and a trailer that
does not take part in a prediction. Only plain regression trees on numbers, as this project writes them, are accepted.
"""

import math
import re
from typing import NamedTuple

from tidemill.domain.errors import IntegrityError

_TRAILER = re.compile(r"(end of trees|feature_importances:|f\d+=\d+|parameters:|\[[a-z0-9_]+: [^\]\n]*\]|end of parameters|)\n")
_LAST_LINE = "pandas_categorical:null\n"
_HEADER = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1", "label_index": "0", "objective": "regression"}
# Bits of a split's kind; the third kind of missing value, zero, is not written by this project.
_CATEGORICAL_SPLIT, MISSING_LEFT, MISSING_IS_ZERO, MISSING_IS_NAN = 1, 2, 4, 8
MISSING_KIND = MISSING_IS_ZERO | MISSING_IS_NAN


class Tree(NamedTuple):
    """Of each split: feature, threshold, kind, left and right child, where a leaf is -1 - its number. leaf: values."""

    feature: list[int]
    threshold: list[float]
    kind: list[int]
    left: list[int]
    right: list[int]
    leaf: list[float]


def trees(text: str, *, features: int) -> list[Tree]:
    """The trees of a model. IntegrityError unless `text` is a model of plain regression trees over `features` columns."""
    try:
        return _trees(text, features)
    except (ValueError, KeyError, IndexError) as exc:
        raise IntegrityError(f"The model text is refused: it does not hold LightGBM trees ({exc}). Train it again.") from exc


def _trees(text: str, features: int) -> list[Tree]:
    start = text.find("\nTree=0\n") + 1
    if not text.startswith("tree\n") or start == 0:
        raise ValueError("no header or no tree")
    header = _fields(text[len("tree\n") : start])
    if any(header.get(key) != value for key, value in _HEADER.items()) or header["max_feature_idx"] != str(features - 1):
        raise ValueError("a header of another kind")
    if len(header["feature_names"].split(" ")) != features or len(header["feature_infos"].split(" ")) != features:
        raise ValueError("another number of features")
    made = []
    for number, size in enumerate(header["tree_sizes"].split(" ")):
        end = start + _count(size)
        block = text[start:end]
        if len(block) != int(size) or not block.startswith(f"Tree={number}\n") or not block.endswith("\n"):
            raise ValueError(f"tree {number} does not have the stated size")
        made.append(_tree(_fields(block), features))
        start = end
    _check_trailer(text[start:])
    return made


def _tree(tree: dict[str, str], features: int) -> Tree:
    leaves = _count(tree["num_leaves"])
    if leaves < 1 or tree["num_cat"] != "0" or tree["is_linear"] != "0":
        raise ValueError("a tree of another kind")
    for key in ("split_gain", "internal_value", "internal_weight", "internal_count"):
        _numbers(tree[key], leaves - 1)
    _numbers(tree["leaf_weight"], leaves if leaves > 1 else 0)
    _numbers(tree["leaf_count"], leaves)
    _numbers(tree["shrinkage"], 1)
    feature, kind, left, right = (
        _integers(tree[key], leaves - 1) for key in ("split_feature", "decision_type", "left_child", "right_child")
    )
    # A split of unknown from known values has an infinite threshold.
    made = Tree(
        feature, _numbers(tree["threshold"], leaves - 1, infinite=True), kind, left, right, _numbers(tree["leaf_value"], leaves)
    )
    if not all(0 <= place < features for place in feature):
        raise ValueError("a split on a feature that is not there")
    if any(one & (_CATEGORICAL_SPLIT | MISSING_IS_ZERO) or not 0 <= one < 16 for one in kind):
        raise ValueError("a split of another kind")
    _check_shape(left, right, leaves)
    return made


def _check_shape(left: list[int], right: list[int], leaves: int) -> None:
    """Every node but the root, and every leaf (as -1 - leaf), has exactly one parent, and an earlier one: no cycle, no hole."""
    children = left + right
    expected = [*range(-leaves, 0), *range(1, leaves - 1)] if leaves > 1 else []
    if sorted(children) != expected:
        raise ValueError("a tree with a hole")
    for parent, pair in enumerate(zip(left, right, strict=True)):
        if any(0 <= child <= parent for child in pair):
            raise ValueError("a tree with a cycle")


def _check_trailer(text: str) -> None:
    if not text.startswith("end of trees\n") or not text.endswith(_LAST_LINE):
        raise ValueError("no end")
    lines = text.removesuffix(_LAST_LINE).splitlines(keepends=True)
    if not all(_TRAILER.fullmatch(line) for line in lines):
        raise ValueError("something after the trees")


def _fields(block: str) -> dict[str, str]:
    lines = [line.split("=", 1) for line in block.split("\n") if line]
    fields = {line[0]: line[1] for line in lines}
    if len(fields) != len(lines):
        raise ValueError("a repeated line")
    return fields


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"{text[:20]!r} is not a count")
    return int(text)


def _numbers(text: str, expected: int, *, infinite: bool = False) -> list[float]:
    values = [float(part) for part in text.split(" ")] if text else []
    if len(values) != expected or any(math.isnan(value) or (math.isinf(value) and not infinite) for value in values):
        raise ValueError("a list of another length, or with a value that is not finite")
    return values


def _integers(text: str, expected: int) -> list[int]:
    values = [int(part) for part in text.split(" ")] if text else []
    if len(values) != expected:
        raise ValueError("a list of another length")
    return values
