"""Operators that look at one bar: `out[i] = f(x[i], y[i], z[i])`. What would be infinite is NaN."""

import math

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Floats
from tidemill.features.opcodes import (
    ABSOLUTE,
    ADD,
    DIVIDE,
    GREATER,
    GREATER_EQUAL,
    LIMIT,
    LOG,
    MAXIMUM,
    MINIMUM,
    MULTIPLY,
    NOT_EQUAL,
    SQUARE_ROOT,
    SUBTRACT,
)


@kernel
def finite(x: float) -> float:
    """x, or NaN where it is infinite or so great that its square would be."""
    return x if math.fabs(x) < LIMIT else np.nan


@kernel
def arithmetic(op: int, out: Floats, x: Floats, y: Floats, lanes: int) -> None:
    if op == ADD:
        for i in range(lanes):
            out[i] = finite(x[i] + y[i])
    elif op == SUBTRACT:
        for i in range(lanes):
            out[i] = finite(x[i] - y[i])
    elif op == MULTIPLY:
        for i in range(lanes):
            out[i] = finite(x[i] * y[i])
    elif op == DIVIDE:
        for i in range(lanes):
            out[i] = finite(x[i] / y[i])


@kernel
def comparison(op: int, out: Floats, x: Floats, y: Floats, lanes: int) -> None:  # noqa: C901  # a switch over opcodes
    """Maximum and minimum are NaN if either side is; a comparison with NaN is 0."""
    if op == MAXIMUM:
        for i in range(lanes):
            out[i] = x[i] if x[i] >= y[i] or x[i] != x[i] else y[i]
    elif op == MINIMUM:
        for i in range(lanes):
            out[i] = x[i] if x[i] <= y[i] or x[i] != x[i] else y[i]
    elif op == GREATER:
        for i in range(lanes):
            out[i] = 1.0 if x[i] > y[i] else 0.0
    elif op == GREATER_EQUAL:
        for i in range(lanes):
            out[i] = 1.0 if x[i] >= y[i] else 0.0
    elif op == NOT_EQUAL:
        for i in range(lanes):
            out[i] = 1.0 if x[i] != y[i] else 0.0


@kernel
def elementwise(op: int, out: Floats, x: Floats, y: Floats, z: Floats, lanes: int) -> None:
    """One operator on one block of lanes, by pointers; `y` and `z` are ignored by operators of fewer arguments."""
    if op <= DIVIDE:
        arithmetic(op, out, x, y, lanes)
    elif op <= NOT_EQUAL:
        comparison(op, out, x, y, lanes)
    elif op == ABSOLUTE:
        for i in range(lanes):
            out[i] = math.fabs(x[i])
    elif op == LOG:
        for i in range(lanes):
            out[i] = finite(math.log(x[i]))
    elif op == SQUARE_ROOT:
        for i in range(lanes):
            out[i] = math.sqrt(x[i])
    else:
        for i in range(lanes):
            out[i] = y[i] if x[i] != 0.0 and x[i] == x[i] else z[i]


@kernel
def single(op: int, x: float, y: float, z: float) -> float:
    """What `elementwise` gives for one lane, without the cost of slices and loops."""
    if op <= DIVIDE:
        value = x + y if op == ADD else x - y if op == SUBTRACT else x * y if op == MULTIPLY else x / y
        return finite(value)
    if op == MAXIMUM:
        return x if x >= y or x != x else y
    if op == MINIMUM:
        return x if x <= y or x != x else y
    if op <= NOT_EQUAL:
        holds = x > y if op == GREATER else x >= y if op == GREATER_EQUAL else x != y
        return 1.0 if holds else 0.0
    if op == ABSOLUTE:
        return math.fabs(x)
    if op == LOG:
        return finite(math.log(x))
    if op == SQUARE_ROOT:
        return math.sqrt(x)
    return y if x != 0.0 and x == x else z
