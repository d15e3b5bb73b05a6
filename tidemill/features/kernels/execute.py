"""The one interpreter of program tables: `scan` takes bars of one symbol as lanes, `step` takes symbols.

Both stand behind one entry, `execute`; with an entry each, the compiler would build the interpreter twice.
"""

import numpy as np

from tidemill.compiled import entry, kernel
from tidemill.features.arrays import Flags, Floats, Integers
from tidemill.features.kernels.bound import (
    AT,
    BOUNDS,
    CLEAN,
    CODE,
    COLUMN,
    DEPTH,
    HISTORY,
    LISTS,
    MEMORY,
    MIRROR,
    NUMBERS,
    OUTPUTS,
    PLACES,
    POSITION,
    PRESENT,
    RAW,
    RESULT,
    SCRATCH,
    STATE,
    flags,
    floats,
    floats_by_row,
    integers,
    integers_by_row,
)
from tidemill.features.kernels.elementwise import elementwise, finite
from tidemill.features.kernels.groups import carried, window_group
from tidemill.features.kernels.narrow import run_lane
from tidemill.features.kernels.nontemporal import copy_past_cache, settle_stores
from tidemill.features.kernels.pointers import floats_of, further
from tidemill.features.kernels.windows import bars
from tidemill.features.opcodes import (
    BLOCK,
    EMITS,
    LAST_ELEMENTWISE,
    OPCODE,
    OUT,
    REF,
    SLOT,
    WINDOW,
    A,
    B,
    C,
)


@kernel
def settle(node: int, memory: Floats, at: Integers, lanes: int, mirror: Integers, clean: Integers, present: Flags,
           partial: bool) -> None:  # fmt: skip
    """Copy what a node got to its twin row, where it has one; an absent symbol gets its own last value back.

    clean[node]: for how many bars at least no symbol of the block has missed a value. While some symbol is absent it cannot
    grow: the windows of that symbol have not moved.
    """
    if mirror[node] == 0:
        return
    place = at[node]
    now, twin = memory[place : place + lanes], memory[place - mirror[node] : place - mirror[node] + lanes]
    if partial:
        for i in range(lanes):
            if not present[i]:
                now[i] = twin[i]
    missing = 0
    for i in range(lanes):
        twin[i] = now[i]
        missing += now[i] != now[i]
    if missing > 0:
        clean[node] = 0
    elif not partial:
        clean[node] += 1


@kernel
def copy(out: Floats, values: Floats) -> None:
    """From the first to the last, so that values may move towards the front of one array."""
    for i in range(len(out)):
        out[i] = values[i]


@kernel
def give(memory: Floats, place: int, result: Floats, feature: int, begin: int, lanes: int, back: int) -> None:
    """Copy a feature out; every NaN becomes the same NaN, whatever operation made it."""
    if back == 1:
        copy_past_cache(result[feature, begin : begin + lanes], memory[place : place + lanes])
    else:
        out, values = floats_of(result[feature, begin:]), further(floats_of(memory), place)
        for i in range(lanes):
            out[i] = values[i] if values[i] == values[i] else np.nan


@kernel
def run_block(code: Integers, numbers: Floats, outputs: Integers, memory: Floats, at: Integers, back: int, lanes: int,  # noqa: C901  # a switch over opcodes
              mirror: Integers, clean: Integers, state: Floats, rows: int, stride: int, present: Flags, partial: bool,
              scratch: Floats, lists: Floats, offset: int, result: Floats, begin: int) -> None:  # fmt: skip
    """Every row of the program on one block of lanes; a feature is given away at once, since its place may be used again."""
    if lanes == 1:
        run_lane(code, numbers, outputs, memory, at, back, mirror, clean, state, rows, stride, present, partial, scratch, lists,
                 offset, result, begin)  # fmt: skip
        return
    base = floats_of(memory)
    pc = given = 0
    while given < len(outputs) and outputs[given, 0] < 0:
        give(memory, at[outputs[given, 1]], result, outputs[given, 2], begin, lanes, back)
        given += 1
    while pc < len(code):
        op, out, emits = code[pc, OPCODE], code[pc, OUT], code[pc, EMITS]
        place, a, b, c = at[out], at[code[pc, A]], at[code[pc, B]], at[code[pc, C]]
        if op <= LAST_ELEMENTWISE:
            elementwise(op, further(base, place), further(base, a), further(base, b), further(base, c), lanes)
        elif op == REF:
            copy(memory[place : place + lanes], bars(memory, a, code[pc, WINDOW], back, lanes))
        elif emits > 0:
            window_group(op, code[pc : pc + 1 + emits], numbers[pc : pc + 1 + emits], memory, at, back, lanes, scratch, lists,
                         offset, clean, present, partial)  # fmt: skip
            for row in range(pc + 1, pc + 1 + emits):
                if mirror[code[row, OUT]] != 0:
                    settle(code[row, OUT], memory, at, lanes, mirror, clean, present, partial)
        else:
            carried(
                op, code[pc], numbers[pc], memory, at, lanes, state[code[pc, SLOT] * rows + offset :], rows, stride, present
            )
        if emits == 0 and mirror[out] != 0:
            settle(out, memory, at, lanes, mirror, clean, present, partial)
        while given < len(outputs) and outputs[given, 0] == pc:
            give(memory, at[outputs[given, 1]], result, outputs[given, 2], begin, lanes, back)
            given += 1
        pc += 1 + emits


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
        copy(memory[place : at[node]], memory[place + lanes : at[node] + lanes])


@kernel
def take_all(memory: Floats, at: Integers, raw: Integers, table: Integers, begin: int, lanes: int) -> None:
    """Bring a block of every raw column in; what is infinite is missing. An empty average price: see `prices.average_price`."""
    for j in range(len(raw)):
        if raw[j] < 0:
            continue
        place, column, end = at[raw[j]], floats(table, COLUMN + j), begin + lanes
        out = memory[place : place + lanes]
        if len(column) > 0:
            values = column[begin:end]
            for i in range(lanes):
                out[i] = finite(values[i])
        else:
            high, low = floats(table, COLUMN + 1)[begin:end], floats(table, COLUMN + 2)[begin:end]
            close = floats(table, COLUMN + 3)[begin:end]
            for i in range(lanes):
                out[i] = finite((high[i] + low[i] + close[i]) / 3.0)


@kernel
def scan(table: Integers, stride: int) -> None:
    """Symbol s has the rows bounds[s] … bounds[s + 1] - 1 of the columns; state and history are updated. All are present.

    stride: 0. With literals as arguments of `run_block`, numba would compile the interpreter a second time for them.
    """
    back, rows, partial, offset = stride + 1, stride + 1, stride > 0, stride
    code, numbers, outputs = integers_by_row(table, CODE), floats_by_row(table, NUMBERS), integers_by_row(table, OUTPUTS)
    at, mirror, clean, raw = integers(table, AT), integers(table, MIRROR), integers(table, CLEAN), integers(table, RAW)
    depth, bounds, present = integers(table, DEPTH), integers(table, BOUNDS), flags(table, PRESENT)
    memory, scratch, result = floats(table, MEMORY), floats(table, SCRATCH), floats_by_row(table, RESULT)
    state, history, lists = floats_by_row(table, STATE), floats_by_row(table, HISTORY), floats_by_row(table, LISTS)
    for symbol in range(len(bounds) - 1):
        recall(memory, at, depth, history[symbol])
        for begin in range(bounds[symbol], bounds[symbol + 1], BLOCK):
            lanes = min(BLOCK, bounds[symbol + 1] - begin)
            take_all(memory, at, raw, table, begin, lanes)
            run_block(code, numbers, outputs, memory, at, back, lanes, mirror, clean, state[symbol], rows, stride, present,
                      partial, scratch, lists[symbol], offset, result, begin)  # fmt: skip
            advance(memory, at, depth, lanes)
        remember(memory, at, depth, history[symbol])
    settle_stores()


@kernel
def rotate(memory: Floats, base: int, rows: int, lanes: Integers, width: int, spare: Floats, later: bool) -> None:
    """Turn the ring of some symbols by one row, in both twins: later, so that their newest value keeps up with a ring that
    moved on without them; or earlier, so that they move on in a ring that stays."""
    for j in range(len(lanes)):
        spare[j] = memory[base + (rows - 1 if later else 0) * width + lanes[j]]
    for r in range(rows - 1):
        into = rows - 1 - r if later else r
        source = into - 1 if later else into + 1
        for j in range(len(lanes)):
            memory[base + into * width + lanes[j]] = memory[base + source * width + lanes[j]]
    end = 0 if later else rows - 1
    for j in range(len(lanes)):
        memory[base + end * width + lanes[j]] = spare[j]
    for r in range(rows):
        for j in range(len(lanes)):
            memory[base + (r + rows) * width + lanes[j]] = memory[base + r * width + lanes[j]]


@kernel
def place_rings(memory: Floats, offsets: Integers, shift: int, depth: Integers, position: Integers, width: int, present: Flags,
                arrived: int, at: Integers) -> None:  # fmt: skip
    """Move the rings of a block to the next row and set `at` to each node's current row; `shift` is where its rings begin.

    When few symbols are present the rings stay, and theirs are turned instead: the cost is that of the smaller group.
    """
    stay, whole = arrived * 2 < len(present), arrived == len(present)
    if not stay:
        position[0] += 1
    turned = position[:0] if whole else np.flatnonzero(present == stay)
    spare = np.empty(len(turned))
    for node in range(len(at)):
        at[node] = offsets[node]
        if depth[node] > 0:
            rows = depth[node] + 1
            at[node] += shift + (position[0] % rows + rows) * width
            if not whole:
                rotate(memory, shift + offsets[node], rows, turned, width, spare, not stay)


@kernel
def present_lanes(present: Flags) -> tuple[int, int, int]:
    """How many lanes are present, the first of them, and the last + 1."""
    count, first, end = 0, len(present), 0
    for lane in range(len(present)):
        if present[lane]:
            count, first, end = count + 1, min(first, lane), lane + 1
    return count, first, end


@kernel
def step(table: Integers, stride: int) -> None:
    """One bar of the symbols that are present, block after block; columns hold one number a symbol; stride: 1.

    Bounds hold the layout: the width of a block, and the size of its rings. A row each of clean, state (places × width), lists
    and position belongs to one block.
    """
    code, numbers, outputs = integers_by_row(table, CODE), floats_by_row(table, NUMBERS), integers_by_row(table, OUTPUTS)
    offsets, at, mirror = integers(table, AT), integers(table, PLACES), integers(table, MIRROR)
    raw, depth, clean = integers(table, RAW), integers(table, DEPTH), integers_by_row(table, CLEAN)
    layout, position = integers(table, BOUNDS), integers(table, POSITION)
    present, memory, scratch = flags(table, PRESENT), floats(table, MEMORY), floats(table, SCRATCH)
    state, lists, result = floats_by_row(table, STATE), floats_by_row(table, LISTS), floats_by_row(table, RESULT)
    symbols, width, size = len(present), layout[0], layout[1]
    for block in range(len(position)):
        begin = block * width
        here = present[begin : min(begin + width, symbols)]
        count, first, last = present_lanes(here)
        if count == 0:
            continue
        place_rings(memory, offsets, block * size, depth, position[block:], width, here, count, at)
        at += first
        lanes, start, partial = last - first, begin + first, count < len(here)
        now, own = here[first:last], clean[block]
        take_all(memory, at, raw, table, start, lanes)
        for node in raw:
            if node >= 0:
                settle(node, memory, at, lanes, mirror, own, now, partial)
        run_block(code, numbers, outputs, memory, at, width, lanes, mirror, own, state[block], width, stride, now, partial,
                  scratch, lists[block], first, result, start)  # fmt: skip
    for i in range(symbols):
        if not present[i]:
            for j in range(len(outputs)):
                result[j, i] = np.nan


@entry
def execute(streaming: bool, table: Integers) -> None:
    """Run a program (its tables: program.py) over columns of bars; `result` (features × rows of the columns) is filled.

    table: the arrays, see bound.py and binding.py.
    """
    stride = 1 if streaming else 0
    if streaming:
        step(table, stride)
    else:
        scan(table, stride)
