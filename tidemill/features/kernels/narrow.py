"""One lane alone: the program's rows on single numbers instead of blocks.

The same arithmetic in the same order as for a block, through pointers instead of slices (`pointers.py`): what a stream of one
symbol, or a batch of one new bar, would spend on blocks of one lane is the cost of calling. Windows that miss a value, and
operators that are rare here, go to the functions for blocks.
"""

import numpy as np

from tidemill.compiled import kernel
from tidemill.features.arrays import Flags, Floats, Integers
from tidemill.features.kernels.elementwise import single
from tidemill.features.kernels.groups import carried, window_group
from tidemill.features.kernels.narrow_windows import (
    Lane,
    changes_one,
    extremes_one,
    field,
    figure,
    moments_one,
    pairs_one,
    places_one,
    quantiles_one,
    ranks_one,
)
from tidemill.features.kernels.pointers import floats_of, integers_of
from tidemill.features.opcodes import (
    ARG_NEWEST,
    ARG_OLDEST,
    CHANGES,
    DEVIATIONS,
    EMITS,
    GREATEST,
    LAST_ELEMENTWISE,
    LINES,
    OPCODE,
    OUT,
    PAIRS,
    RANKS,
    REF,
    SLOT,
    SMALLEST,
    WINDOW,
    A,
    B,
    C,
)


@kernel
def is_full_one(lane: Lane, node: int, window: int) -> bool:
    """`windows.is_full` for one lane."""
    if lane.counted:
        return bool(lane.clean[node] >= window)
    start = lane.at[node]
    missing = 0
    for k in range(window):
        value = lane.memory[start - k * lane.back]
        missing += value != value
    return missing == 0


@kernel
def group_one(lane: Lane, pc: int) -> bool:
    """The group at row pc; False, and nothing done, where it is left to the functions for blocks."""
    op, a, b, window = field(lane, pc, OPCODE), field(lane, pc, A), field(lane, pc, B), field(lane, pc, WINDOW)
    if op == DEVIATIONS or not is_full_one(lane, a, window + 1 if op == CHANGES else window):
        return False
    first, last, start, other = pc + 1, pc + 1 + field(lane, pc, EMITS), lane.at[a], lane.at[b]
    if op <= LINES:
        moments_one(op, lane, first, last, start)
    elif op == PAIRS:
        if not is_full_one(lane, b, window):
            return False
        pairs_one(lane, first, last, start, other)
    elif op == CHANGES:
        changes_one(lane, first, last, start, other)
    elif GREATEST <= op <= SMALLEST:
        extremes_one(1.0 if op == GREATEST else -1.0, lane, first, last, start)
    elif ARG_OLDEST <= op <= ARG_NEWEST:
        places_one(figure(lane, pc), op == ARG_OLDEST, lane, first, last, start, other)
    elif op == RANKS:
        ranks_one(lane, first, last, start)
    else:
        quantiles_one(lane, first, last, start)
    return True


@kernel
def settle_one(lane: Lane, node: int, mirror: Integers, partial: bool) -> None:
    """`execute.settle` for one lane, which is present."""
    if mirror[node] != 0:
        value = lane.memory[lane.at[node]]
        lane.memory[lane.at[node] - mirror[node]] = value
        if value != value:
            lane.clean[node] = 0
        elif not partial:
            lane.clean[node] += 1


@kernel
def give_one(lane: Lane, outputs: Integers, count: int, given: int, row: int, result: Floats, stride: int) -> int:
    """Copy out the features that are known after `row`; how many are given then. Every NaN becomes the same NaN."""
    while given < count and outputs[3 * given] == row:
        value = lane.memory[lane.at[outputs[3 * given + 1]]]
        result[outputs[3 * given + 2] * stride] = value if value == value else np.nan
        given += 1
    return given


@kernel
def run_lane(code: Integers, numbers: Floats, outputs: Integers, memory: Floats, at: Integers, back: int, mirror: Integers,
             clean: Integers, state: Floats, rows: int, stride: int, present: Flags, partial: bool, scratch: Floats,
             lists: Floats, offset: int, result: Floats, begin: int) -> None:  # fmt: skip
    """What `run_block` does, for one lane."""
    lane = Lane(
        integers_of(code), floats_of(numbers), floats_of(memory), integers_of(at), floats_of(lists[offset:]),
        integers_of(clean), len(clean) > 0, back,
    )  # fmt: skip
    twins, wanted, out = integers_of(mirror), integers_of(outputs), floats_of(result[:, begin:])
    given = give_one(lane, wanted, len(outputs), 0, -1, out, result.shape[1])
    pc = 0
    while pc < len(code):
        op, node, emits = field(lane, pc, OPCODE), field(lane, pc, OUT), field(lane, pc, EMITS)
        if op <= LAST_ELEMENTWISE:
            x, y, z = lane.at[field(lane, pc, A)], lane.at[field(lane, pc, B)], lane.at[field(lane, pc, C)]
            lane.memory[lane.at[node]] = single(op, lane.memory[x], lane.memory[y], lane.memory[z])
        elif op == REF:
            lane.memory[lane.at[node]] = lane.memory[lane.at[field(lane, pc, A)] - field(lane, pc, WINDOW) * back]
        elif emits == 0:
            carried(op, code[pc], numbers[pc], memory, at, 1, state[code[pc, SLOT] * rows + offset :], rows, stride, present)
        elif not group_one(lane, pc):
            window_group(op, code[pc : pc + 1 + emits], numbers[pc : pc + 1 + emits], memory, at, back, 1, scratch, lists,
                         offset, clean, present, partial)  # fmt: skip
        settle_one(lane, node, twins, partial)
        for row in range(pc + 2, pc + 1 + emits):
            settle_one(lane, field(lane, row, OUT), twins, partial)
        given = give_one(lane, wanted, len(outputs), given, pc, out, result.shape[1])
        pc += 1 + emits
