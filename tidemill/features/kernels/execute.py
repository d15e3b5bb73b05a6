"""The one interpreter of program tables: `scan` takes bars of one symbol as lanes, `step` takes symbols.

Both stand behind one entry, `execute`; with an entry each, the compiler would build the interpreter twice.
"""

import numpy as np

from tidemill.features.arrays import Columns, Flags, Floats, Integers
from tidemill.features.kernel_cache import entry, kernel
from tidemill.features.kernels.borrow import borrowed
from tidemill.features.kernels.elementwise import elementwise, finite
from tidemill.features.kernels.order import extremes, places, quantiles, ranks
from tidemill.features.kernels.recursive import adaptive, age, cumulative, sar, smooth
from tidemill.features.kernels.windows import deviations, moments, pairs
from tidemill.features.opcodes import (
    ADAPTIVE,
    ARG_NEWEST,
    ARG_OLDEST,
    BLOCK,
    CUMULATIVE,
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
    SAR,
    SLOT,
    SMALLEST,
    SMOOTH,
    SORTED,
    SUMS,
    WINDOW,
    A,
    B,
    C,
)


@kernel
def window_group(op: int, code: Integers, numbers: Floats, memory: Floats, at: Integers, back: int, lanes: int, scratch: Floats,
                 ordered: Floats) -> None:  # fmt: skip
    """A group row (the first of `code`) with its EMIT rows."""
    rows, start, other = code[1:], at[code[0, A]], at[code[0, B]]
    if SUMS <= op <= LINES:
        moments(op, rows, numbers[1:, 0], memory, at, start, back, lanes, scratch)
    elif op == PAIRS:
        pairs(rows, memory, at, start, other, back, lanes, scratch)
    elif GREATEST <= op <= SMALLEST:
        extremes(op, rows, memory, at, start, back, lanes, scratch)
    elif ARG_OLDEST <= op <= ARG_NEWEST:
        places(op, rows, numbers[0, 0], memory, at, start, other, back, lanes, scratch)
    elif op == RANKS:
        ranks(rows, memory, at, start, back, lanes, scratch)
    elif op == SORTED:
        quantiles(rows, numbers[1:, 0], memory, at, start, back, lanes, ordered, scratch)
    elif op == DEVIATIONS:
        deviations(rows, memory, at, start, back, lanes, scratch)


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


@kernel
def settle(node: int, memory: Floats, at: Integers, lanes: int, mirror: Integers, present: Flags, partial: bool) -> None:
    """Copy what a ring node got to its twin row; an absent symbol gets its own last value back."""
    if mirror[node] == 0:
        return
    place = at[node]
    now, twin = memory[place : place + lanes], memory[place - mirror[node] : place - mirror[node] + lanes]
    if partial:
        for i in range(lanes):
            if not present[i]:
                now[i] = twin[i]
    for i in range(lanes):
        twin[i] = now[i]


@kernel
def run_block(code: Integers, numbers: Floats, memory: Floats, at: Integers, back: int, lanes: int, mirror: Integers,
              state: Floats, rows: int, stride: int, present: Flags, partial: bool, scratch: Floats,
              ordered: Floats) -> None:  # fmt: skip
    """Every row of the program on one block of lanes."""
    pc = 0
    while pc < len(code):
        op, out, emits = code[pc, OPCODE], code[pc, OUT], code[pc, EMITS]
        place, a, b, c = at[out], at[code[pc, A]], at[code[pc, B]], at[code[pc, C]]
        if op <= LAST_ELEMENTWISE:
            elementwise(op, memory[place : place + lanes], memory[a : a + lanes], memory[b : b + lanes], memory[c : c + lanes])
        elif op == REF:
            begin = a - code[pc, WINDOW] * back
            memory[place : place + lanes] = memory[begin : begin + lanes]
        elif emits > 0:
            window_group(op, code[pc : pc + 1 + emits], numbers[pc : pc + 1 + emits], memory, at, back, lanes, scratch, ordered)
            for row in range(pc + 1, pc + 1 + emits):
                settle(code[row, OUT], memory, at, lanes, mirror, present, partial)
        else:
            carried(op, code[pc], numbers[pc], memory, at, lanes, state[code[pc, SLOT] * rows :], rows, stride, present)
        if emits == 0:
            settle(out, memory, at, lanes, mirror, present, partial)
        pc += 1 + emits


@kernel
def give(memory: Floats, at: Integers, outputs: Integers, result: Floats, begin: int, lanes: int) -> None:
    """Copy the features of a block out; every NaN becomes the same NaN, whatever operation made it."""
    for j in range(len(outputs)):
        place = at[outputs[j]]
        for i in range(lanes):
            value = memory[place + i]
            result[j, begin + i] = value if value == value else np.nan


@kernel
def recall(memory: Floats, at: Integers, depth: Integers, history: Floats) -> None:
    """Put a symbol's stored history (per node, oldest first) before the block."""
    read = 0
    for node in range(len(depth)):
        for k in range(depth[node]):
            memory[at[node] - depth[node] + k] = history[read]
            read += 1


@kernel
def remember(memory: Floats, at: Integers, depth: Integers, history: Floats) -> None:
    """The opposite of `recall`: the values before the next block are the history."""
    written = 0
    for node in range(len(depth)):
        for k in range(depth[node]):
            history[written] = memory[at[node] - depth[node] + k]
            written += 1


@kernel
def advance(memory: Floats, at: Integers, depth: Integers, lanes: int) -> None:
    """Move each node's newest values before its block."""
    for node in range(len(depth)):
        place = at[node] - depth[node]
        for k in range(depth[node]):
            memory[place + k] = memory[place + k + lanes]


@kernel
def take_all(memory: Floats, at: Integers, raw: Integers, columns: Columns, begin: int, lanes: int) -> None:
    """Bring a block of every raw column in; what is infinite is missing."""
    for j in range(len(raw)):
        if raw[j] >= 0:
            place, column = at[raw[j]], columns[j]
            for i in range(lanes):
                memory[place + i] = finite(column[begin + i])


@kernel
def scan(code: Integers, numbers: Floats, at: Integers, depth: Integers, mirror: Integers, raw: Integers, columns: Columns,
         bounds: Integers, present: Flags, memory: Floats, stride: int, state: Floats, history: Floats, scratch: Floats,
         ordered: Floats, outputs: Integers, result: Floats) -> None:  # fmt: skip
    """Symbol s has the rows bounds[s] … bounds[s + 1] - 1 of the columns; state and history are updated. All are present.

    stride: 0. With literals as arguments of `run_block`, numba would compile the interpreter a second time for them.
    """
    back, rows, partial = stride + 1, stride + 1, stride > 0
    for symbol in range(len(bounds) - 1):
        recall(memory, at, depth, history[symbol])
        for begin in range(bounds[symbol], bounds[symbol + 1], BLOCK):
            lanes = min(BLOCK, bounds[symbol + 1] - begin)
            take_all(memory, at, raw, columns, begin, lanes)
            run_block(
                code,
                numbers,
                memory,
                at,
                back,
                lanes,
                mirror,
                borrowed(state[symbol]),
                rows,
                stride,
                present,
                partial,
                scratch,
                ordered,
            )
            give(memory, at, outputs, result, begin, lanes)
            advance(memory, at, depth, lanes)
        remember(memory, at, depth, history[symbol])


@kernel
def rotate(memory: Floats, base: int, rows: int, lanes: Integers, symbols: int, spare: Floats, later: bool) -> None:
    """Turn the ring of some symbols by one row, in both twins: later, so that their newest value keeps up with a ring that
    moved on without
    them; or earlier, so that they move on in a ring that stays."""
    for j in range(len(lanes)):
        spare[j] = memory[base + (rows - 1 if later else 0) * symbols + lanes[j]]
    for r in range(rows - 1):
        into = rows - 1 - r if later else r
        source = into - 1 if later else into + 1
        for j in range(len(lanes)):
            memory[base + into * symbols + lanes[j]] = memory[base + source * symbols + lanes[j]]
    end = 0 if later else rows - 1
    for j in range(len(lanes)):
        memory[base + end * symbols + lanes[j]] = spare[j]
    for r in range(rows):
        for j in range(len(lanes)):
            memory[base + (r + rows) * symbols + lanes[j]] = memory[base + r * symbols + lanes[j]]


@kernel
def place_rings(memory: Floats, offsets: Integers, depth: Integers, position: Integers, present: Flags, at: Integers) -> None:
    """Move the rings to the next row and set `at` to each node's current row.

    When few symbols are present the rings stay, and theirs are turned instead: the cost is that of the smaller group.
    """
    symbols = len(present)
    arrived = int(present.sum())
    stay = arrived * 2 < symbols
    if not stay:
        position[0] += 1
    turned = np.flatnonzero(present) if stay else np.flatnonzero(~present)
    spare = np.empty(len(turned))
    for node in range(len(at)):
        at[node] = offsets[node]
        if depth[node] > 0:
            rows = depth[node] + 1
            at[node] += (position[0] % rows + rows) * symbols
            if len(turned) > 0:
                rotate(memory, offsets[node], rows, turned, symbols, spare, not stay)


@kernel
def step(code: Integers, numbers: Floats, offsets: Integers, depth: Integers, mirror: Integers, raw: Integers, columns: Columns,
         present: Flags, memory: Floats, position: Integers, stride: int, state: Floats, scratch: Floats, ordered: Floats,
         outputs: Integers, result: Floats) -> None:  # fmt: skip
    """One bar of the symbols that are present; columns hold one number a symbol, state is places × symbols, flat; stride: 1."""
    symbols = len(present)
    at, shifted = np.empty(len(offsets), dtype=np.int64), np.empty(len(offsets), dtype=np.int64)
    place_rings(memory, offsets, depth, position, present, at)
    for begin in range(0, symbols, BLOCK):
        here = np.flatnonzero(present[begin : begin + BLOCK])
        if len(here) == 0:
            continue
        start = begin + here[0]
        lanes = here[-1] - here[0] + 1
        now, partial = borrowed(present[start : start + lanes]), len(here) < lanes
        shifted[:] = at + start
        take_all(memory, shifted, raw, columns, start, lanes)
        for node in raw:
            if node >= 0:
                settle(node, memory, shifted, lanes, mirror, now, partial)
        run_block(
            code, numbers, memory, borrowed(shifted), symbols, lanes, mirror, borrowed(state[start:]), symbols, stride, now,
            partial, scratch, ordered,
        )  # fmt: skip
        give(memory, shifted, outputs, result, start, lanes)
    for j in range(len(outputs)):
        for i in range(symbols):
            if not present[i]:
                result[j, i] = np.nan


@entry
def execute(streaming: bool, code: Integers, numbers: Floats, depth: Integers, raw: Integers, outputs: Integers,
            at: Integers, mirror: Integers, columns: Columns, memory: Floats, scratch: Floats, ordered: Floats, present: Flags,
            state: Floats, history: Floats, bounds: Integers, position: Integers, result: Floats) -> None:  # fmt: skip
    """Run a program (its tables: program.py) over columns of bars; `result` (features × rows of the columns) is filled.

    at, mirror: layout of `memory`, whose constants are in place. scratch, ordered: work areas. bounds, history: read by a scan
    alone;
    position, the row of the rings: by a step alone. state: symbols × places in a scan, places × symbols in a step.
    """
    table, figures, area, places = borrowed(code), borrowed(numbers), borrowed(memory), borrowed(at)
    room, lists, flags, twins = borrowed(scratch), borrowed(ordered), borrowed(present), borrowed(mirror)
    stride = 1 if streaming else 0
    if streaming:
        step(table, figures, places, depth, twins, raw, columns, flags, area, position, stride, borrowed(state.reshape(-1)),
             room, lists, outputs, result)  # fmt: skip
    else:
        scan(table, figures, places, depth, twins, raw, columns, bounds, flags, area, stride, borrowed(state),
             borrowed(history), room, lists, outputs, result)  # fmt: skip
