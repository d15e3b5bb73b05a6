"""The one interpreter of program tables: `scan` takes bars of one symbol as lanes, `step` takes symbols.

Both stand behind one entry, `execute`; with an entry each, the compiler would build the interpreter twice.
"""

import numpy as np

from tidemill.features.arrays import Columns, Flags, Floats, Integers
from tidemill.features.kernel_cache import entry, kernel
from tidemill.features.kernels.borrow import borrowed
from tidemill.features.kernels.changes import changes, deviations, pairs
from tidemill.features.kernels.elementwise import elementwise, finite, single
from tidemill.features.kernels.nontemporal import copy_numbers, copy_past_cache, settle_stores
from tidemill.features.kernels.order import extremes, places, ranks
from tidemill.features.kernels.recursive import adaptive, age, cumulative, sar, smooth
from tidemill.features.kernels.sorting import quantiles, slide
from tidemill.features.kernels.windows import bars, is_full, moments
from tidemill.features.opcodes import (
    ADAPTIVE,
    ARG_NEWEST,
    ARG_OLDEST,
    BLOCK,
    CHANGES,
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


@kernel
def settle(node: int, memory: Floats, at: Integers, lanes: int, mirror: Integers, clean: Integers, present: Flags,
           partial: bool) -> None:  # fmt: skip
    """Copy what a ring node got to its twin row; an absent symbol gets its own last value back.

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
    if lanes == 1:
        only = memory[place]
        result[feature, begin] = only if only == only else np.nan
    elif back == 1:
        copy_past_cache(result[feature, begin : begin + lanes], memory[place : place + lanes])
    else:
        copy_numbers(result[feature, begin : begin + lanes], memory[place : place + lanes], 0, lanes)


@kernel
def run_block(code: Integers, numbers: Floats, outputs: Integers, memory: Floats, at: Integers, back: int, lanes: int,
              mirror: Integers, clean: Integers, state: Floats, rows: int, stride: int, present: Flags, partial: bool,
              scratch: Floats, lists: Floats, offset: int, result: Floats, begin: int) -> None:  # fmt: skip
    """Every row of the program on one block of lanes; a feature is given away at once, since its place may be used again."""
    pc = given = 0
    while given < len(outputs) and outputs[given, 0] < 0:
        give(memory, at[outputs[given, 1]], result, outputs[given, 2], begin, lanes, back)
        given += 1
    while pc < len(code):
        op, out, emits = code[pc, OPCODE], code[pc, OUT], code[pc, EMITS]
        place, a, b, c = at[out], at[code[pc, A]], at[code[pc, B]], at[code[pc, C]]
        if op <= LAST_ELEMENTWISE:
            if lanes == 1:
                memory[place] = single(op, memory[a], memory[b], memory[c])
            else:
                elementwise(
                    op, memory[place : place + lanes], memory[a : a + lanes], memory[b : b + lanes], memory[c : c + lanes]
                )
        elif op == REF:
            copy(memory[place : place + lanes], bars(memory, a, code[pc, WINDOW], back, lanes))
        elif emits > 0:
            window_group(op, code[pc : pc + 1 + emits], numbers[pc : pc + 1 + emits], memory, at, back, lanes, scratch, lists,
                         offset, clean, present, partial)  # fmt: skip
            for row in range(pc + 1, pc + 1 + emits):
                settle(code[row, OUT], memory, at, lanes, mirror, clean, present, partial)
        else:
            carried(
                op, code[pc], numbers[pc], memory, at, lanes, state[code[pc, SLOT] * rows + offset :], rows, stride, present
            )
        if emits == 0:
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
def take_all(memory: Floats, at: Integers, raw: Integers, columns: Columns, begin: int, lanes: int) -> None:
    """Bring a block of every raw column in; what is infinite is missing. An empty average price: see `prices.average_price`."""
    for j in range(len(raw)):
        if raw[j] < 0:
            continue
        place, column, end = at[raw[j]], columns[j], begin + lanes
        out = memory[place : place + lanes]
        if len(column) > 0:
            values = column[begin:end]
            for i in range(lanes):
                out[i] = finite(values[i])
        else:
            high, low, close = columns[1][begin:end], columns[2][begin:end], columns[3][begin:end]
            for i in range(lanes):
                out[i] = finite((high[i] + low[i] + close[i]) / 3.0)


@kernel
def scan(code: Integers, numbers: Floats, outputs: Integers, at: Integers, depth: Integers, mirror: Integers, clean: Integers,
         raw: Integers, columns: Columns, bounds: Integers, present: Flags, memory: Floats, stride: int, state: Floats,
         history: Floats, scratch: Floats, lists: Floats, result: Floats) -> None:  # fmt: skip
    """Symbol s has the rows bounds[s] … bounds[s + 1] - 1 of the columns; state and history are updated. All are present.

    stride: 0. With literals as arguments of `run_block`, numba would compile the interpreter a second time for them.
    """
    back, rows, partial, offset = stride + 1, stride + 1, stride > 0, stride
    for symbol in range(len(bounds) - 1):
        recall(memory, at, depth, history[symbol])
        own, sorted_ = borrowed(state[symbol]), borrowed(lists[symbol])
        for begin in range(bounds[symbol], bounds[symbol + 1], BLOCK):
            lanes = min(BLOCK, bounds[symbol + 1] - begin)
            take_all(memory, at, raw, columns, begin, lanes)
            run_block(code, numbers, outputs, memory, at, back, lanes, mirror, clean, own, rows, stride, present, partial,
                      scratch, sorted_, offset, result, begin)  # fmt: skip
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
                at: Integers) -> None:  # fmt: skip
    """Move the rings of a block to the next row and set `at` to each node's current row; `shift` is where its rings begin.

    When few symbols are present the rings stay, and theirs are turned instead: the cost is that of the smaller group.
    """
    arrived = int(present.sum())
    stay = arrived * 2 < len(present)
    if not stay:
        position[0] += 1
    turned = np.flatnonzero(present) if stay else np.flatnonzero(~present)
    spare = np.empty(len(turned))
    for node in range(len(at)):
        at[node] = offsets[node]
        if depth[node] > 0:
            rows = depth[node] + 1
            at[node] += shift + (position[0] % rows + rows) * width
            if len(turned) > 0:
                rotate(memory, shift + offsets[node], rows, turned, width, spare, not stay)


@kernel
def step(code: Integers, numbers: Floats, outputs: Integers, offsets: Integers, depth: Integers, mirror: Integers,
         clean: Integers, raw: Integers, columns: Columns, layout: Integers, present: Flags, memory: Floats, position: Integers,
         stride: int, state: Floats, scratch: Floats, lists: Floats, result: Floats) -> None:  # fmt: skip
    """One bar of the symbols that are present, block after block; columns hold one number a symbol; stride: 1.

    layout: the width of a block, and the size of its rings. A row each of clean, state (places × width), lists and position
    belongs to one block.
    """
    symbols, width, size = len(present), layout[0], layout[1]
    at = np.empty(len(offsets), dtype=np.int64)
    for block in range(len(position)):
        begin = block * width
        end = min(begin + width, symbols)
        here = np.flatnonzero(present[begin:end])
        if len(here) == 0:
            continue
        place_rings(memory, offsets, block * size, depth, position[block : block + 1], width, present[begin:end], at)
        first = here[0]
        lanes, start = here[-1] - first + 1, begin + first
        at += first
        now, partial, unspoilt = borrowed(present[start : start + lanes]), len(here) < end - begin, borrowed(clean[block])
        take_all(memory, at, raw, columns, start, lanes)
        for node in raw:
            if node >= 0:
                settle(node, memory, at, lanes, mirror, unspoilt, now, partial)
        run_block(code, numbers, outputs, memory, borrowed(at), width, lanes, mirror, unspoilt, borrowed(state[block]),
                  width, stride, now, partial, scratch, borrowed(lists[block]), first, result, start)  # fmt: skip
    for i in range(symbols):
        if not present[i]:
            for j in range(len(outputs)):
                result[j, i] = np.nan


@entry
def execute(streaming: bool, code: Integers, numbers: Floats, outputs: Integers, depth: Integers, raw: Integers, at: Integers,
            mirror: Integers, clean: Integers, columns: Columns, memory: Floats, scratch: Floats, lists: Floats, present: Flags,
            state: Floats, history: Floats, bounds: Integers, position: Integers, result: Floats) -> None:  # fmt: skip
    """Run a program (its tables: program.py) over columns of bars; `result` (features × rows of the columns) is filled.

    at, mirror: layout of `memory`, whose constants are in place. scratch: a work area. lists: sorted windows, a row a symbol in
    a scan and a block in a step. bounds: of the symbols in a scan, the layout of blocks in a step. history: read by a scan
    alone; clean and position, the row of the rings: by a step alone. state: symbols × places in a scan, blocks × (places ×
    width) in a step.
    """
    table, figures, area, places = borrowed(code), borrowed(numbers), borrowed(memory), borrowed(at)
    room, given, flags, twins = borrowed(scratch), borrowed(outputs), borrowed(present), borrowed(mirror)
    stride = 1 if streaming else 0
    if streaming:
        step(table, figures, given, places, depth, twins, clean, raw, columns, bounds, flags, area, position, stride,
             borrowed(state), room, borrowed(lists), borrowed(result))  # fmt: skip
    else:
        scan(table, figures, given, places, depth, twins, borrowed(clean[0]), raw, columns, bounds, flags, area, stride,
             borrowed(state), borrowed(history), room, borrowed(lists), borrowed(result))  # fmt: skip
