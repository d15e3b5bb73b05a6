"""The rows of a program that are more than element-wise, for a block of lanes: which function does which."""

from tidemill.compiled import kernel
from tidemill.features.arrays import Flags, Floats, Integers
from tidemill.features.kernels.changes import changes, deviations, pairs
from tidemill.features.kernels.order import extremes, places, ranks
from tidemill.features.kernels.recursive import adaptive, age, cumulative, sar, smooth
from tidemill.features.kernels.sorting import quantiles, slide
from tidemill.features.kernels.windows import is_full, moments
from tidemill.features.opcodes import (
    ADAPTIVE,
    ARG_NEWEST,
    ARG_OLDEST,
    CHANGES,
    CUMULATIVE,
    DEVIATIONS,
    GREATEST,
    LINES,
    OUT,
    PAIRS,
    RANKS,
    SAR,
    SMALLEST,
    SMOOTH,
    SUMS,
    WINDOW,
    A,
    B,
    C,
)


@kernel
def window_group(op: int, code: Integers, numbers: Floats, memory: Floats, at: Integers, back: int, lanes: int, scratch: Floats,
                 lists: Floats, offset: int, clean: Integers, present: Flags, partial: bool) -> None:  # fmt: skip
    """A group row (the first of `code`) with its EMIT rows. A scan has no `clean`; see `is_full`."""
    rows, start, other = code[1:], at[code[0, A]], at[code[0, B]]
    window = code[0, WINDOW] + (1 if op == CHANGES else 0)
    full = is_full(memory, start, code[0, A], window, lanes, clean)
    if SUMS <= op <= LINES:
        moments(op, rows, numbers[1:, 0], memory, at, start, back, lanes, full, scratch)
    elif op == PAIRS:
        both = full and is_full(memory, other, code[0, B], window, lanes, clean)
        pairs(rows, memory, at, start, other, back, lanes, both, scratch)
    elif op == CHANGES:
        changes(rows, memory, at, start, other, back, lanes, full, scratch)
    elif GREATEST <= op <= SMALLEST:
        extremes(op, rows, memory, at, start, back, lanes, full, scratch)
    elif ARG_OLDEST <= op <= ARG_NEWEST:
        places(op, rows, numbers[0, 0], memory, at, start, other, back, lanes, full, scratch)
    elif op == RANKS:
        ranks(rows, memory, at, start, back, lanes, full, scratch)
    elif op == DEVIATIONS:
        deviations(rows, memory, at, start, back, lanes, full, scratch)
    elif back == 1:  # bars, or the only symbol of a stream
        slide(rows, numbers[1:, 0], memory, at, start, lanes, lists, scratch)
    else:
        quantiles(rows, numbers[1:, 0], memory, at, start, back, lanes, lists, offset, present, partial, full, scratch)


@kernel
def carried(op: int, row: Integers, numbers: Floats, memory: Floats, at: Integers, lanes: int, state: Floats,
            rows: int, stride: int, present: Flags) -> None:  # fmt: skip
    """A recursive operator; `state` begins at its first place."""
    place, a, b, c = at[row[OUT]], at[row[A]], at[row[B]], at[row[C]]
    out, x = memory[place : place + lanes], memory[a : a + lanes]
    if op == SMOOTH:
        smooth(out, x, numbers, state, rows, stride, present)
    elif op == ADAPTIVE:
        adaptive(out, x, memory[b : b + lanes], memory[c : c + lanes], state, rows, stride, present)
    elif op == CUMULATIVE:
        cumulative(out, x, state, rows, stride, present)
    elif op == SAR:
        sar(out, x, memory[b : b + lanes], numbers, state, rows, stride, present)
    else:
        age(out, state, stride, present)
