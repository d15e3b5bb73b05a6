"""Sums, moments and lines over windows, for a block of lanes at once.

Lane i of a node lies at `start + i`, its value k bars ago at `start + i - k * back`: in a scan lanes are bars and `back` is 1,
in a step lanes are symbols and `back` is the width of a row of them. Either way every lane does the same arithmetic in the same
order, newest value to oldest, on values less the newest number in the window; hence equal bits. Windows that differ in length
only share one scan. Where no lane misses a value (`full`), it needs no masks and no counts, and its sums are the same.
"""

from tidemill.compiled import kernel
from tidemill.features.arrays import Floats, Integers
from tidemill.features.kernels.formulas import enough, fit_of, mean_of, residual_of, slope_of, std_of, weighted_of
from tidemill.features.kernels.scratch import COUNT, S1, S2, SHIFT, SK, SKK, SKX
from tidemill.features.opcodes import (
    BLOCK,
    EMIT_MEAN,
    EMIT_RESID,
    EMIT_RSQUARE,
    EMIT_SLOPE,
    EMIT_STD,
    EMIT_SUM,
    LEAST,
    OPCODE,
    OUT,
    SPREADS,
    SUMS,
    WINDOW,
)


@kernel
def clear(scratch: Floats, first: int, last: int, lanes: int) -> None:
    """Zero the lanes in use of the places from `first` to `last`."""
    for place in range(first, last + 1, BLOCK):
        for i in range(lanes):
            scratch[place + i] = 0.0


@kernel
def bars(memory: Floats, start: int, k: int, back: int, lanes: int) -> Floats:
    """The lanes k bars ago."""
    begin = start - k * back
    return memory[begin : begin + lanes]


@kernel
def newest_number(memory: Floats, start: int, back: int, window: int, lanes: int, scratch: Floats) -> None:
    """SHIFT := the newest value that is a number, NaN where the window holds none."""
    newest = memory[start : start + lanes]
    missing = 0
    for i in range(lanes):
        scratch[SHIFT + i] = newest[i]
        missing += newest[i] != newest[i]
    k = 1
    while missing > 0 and k < window:
        older = bars(memory, start, k, back, lanes)
        missing = 0
        for i in range(lanes):
            shift = scratch[SHIFT + i]
            shift = older[i] if shift != shift else shift
            scratch[SHIFT + i] = shift
            missing += shift != shift
        k += 1


@kernel
def is_full(memory: Floats, start: int, node: int, window: int, lanes: int, clean: Integers) -> bool:
    """Whether no lane misses a value in its window. A scan looks, since its windows overlap; a step has counted (`settle`)."""
    if len(clean) > 0:
        return bool(clean[node] >= window)
    x = memory[start - window + 1 : start + lanes]
    missing = 0
    for i in range(len(x)):
        missing += x[i] != x[i]
    return missing == 0


@kernel
def count_full(window: int, lanes: int, scratch: Floats) -> None:
    """The counts of a window without missing values; exact, and so equal to what adding one by one gives."""
    n = float(window)
    for i in range(lanes):
        scratch[COUNT + i] = n
        scratch[SK + i] = n * (n - 1.0) / 2.0
        scratch[SKK + i] = (n - 1.0) * n * (2.0 * n - 1.0) / 6.0


@kernel
def add_counts(full: bool, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """COUNT := how many numbers the window of `end` bars holds; the newest k are counted already."""
    if full:
        for i in range(lanes):
            scratch[COUNT + i] = float(end)
        return
    for older in range(k, end):
        x = bars(memory, start, older, back, lanes)
        for i in range(lanes):
            scratch[COUNT + i] += 1.0 if x[i] == x[i] else 0.0


@kernel
def add_full_means(memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """Add bars k … end - 1 back, none missing; four at a time spares loads and stores, in the same order."""
    while k + 4 <= end:
        a, b = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        c, e = bars(memory, start, k + 2, back, lanes), bars(memory, start, k + 3, back, lanes)
        for i in range(lanes):
            shift, s1 = scratch[SHIFT + i], scratch[S1 + i]
            s1 += a[i] - shift
            s1 += b[i] - shift
            s1 += c[i] - shift
            s1 += e[i] - shift
            scratch[S1 + i] = s1
        k += 4
    while k < end:
        a = bars(memory, start, k, back, lanes)
        for i in range(lanes):
            scratch[S1 + i] += a[i] - scratch[SHIFT + i]
        k += 1


@kernel
def add_full_spreads(memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    while k + 4 <= end:
        a, b = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        c, e = bars(memory, start, k + 2, back, lanes), bars(memory, start, k + 3, back, lanes)
        for i in range(lanes):
            shift, s1, s2 = scratch[SHIFT + i], scratch[S1 + i], scratch[S2 + i]
            p, q, r, t = a[i] - shift, b[i] - shift, c[i] - shift, e[i] - shift
            scratch[S1 + i] = (((s1 + p) + q) + r) + t
            scratch[S2 + i] = (((s2 + p * p) + q * q) + r * r) + t * t
        k += 4
    while k < end:
        a = bars(memory, start, k, back, lanes)
        for i in range(lanes):
            d = a[i] - scratch[SHIFT + i]
            scratch[S1 + i] += d
            scratch[S2 + i] += d * d
        k += 1


@kernel
def add_full_lines(memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    while k + 4 <= end:
        a, b = bars(memory, start, k, back, lanes), bars(memory, start, k + 1, back, lanes)
        c, e = bars(memory, start, k + 2, back, lanes), bars(memory, start, k + 3, back, lanes)
        first, second, third, fourth = float(k), float(k + 1), float(k + 2), float(k + 3)
        for i in range(lanes):
            shift, s1, s2, skx = scratch[SHIFT + i], scratch[S1 + i], scratch[S2 + i], scratch[SKX + i]
            p, q, r, t = a[i] - shift, b[i] - shift, c[i] - shift, e[i] - shift
            scratch[S1 + i] = (((s1 + p) + q) + r) + t
            scratch[S2 + i] = (((s2 + p * p) + q * q) + r * r) + t * t
            scratch[SKX + i] = (((skx + first * p) + second * q) + third * r) + fourth * t
        k += 4
    while k < end:
        a, near = bars(memory, start, k, back, lanes), float(k)
        for i in range(lanes):
            d = a[i] - scratch[SHIFT + i]
            scratch[S1 + i] += d
            scratch[S2 + i] += d * d
            scratch[SKX + i] += near * d
        k += 1


@kernel
def add_full(group: int, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    if group < SPREADS:
        add_full_means(memory, start, k, end, back, lanes, scratch)
    elif group == SPREADS:
        add_full_spreads(memory, start, k, end, back, lanes, scratch)
    else:
        add_full_lines(memory, start, k, end, back, lanes, scratch)
    count_full(end, lanes, scratch)


@kernel
def add_mean(x: Floats, lanes: int, scratch: Floats) -> None:
    for i in range(lanes):
        d = x[i] - scratch[SHIFT + i]
        number = d == d
        scratch[COUNT + i] += 1.0 if number else 0.0
        scratch[S1 + i] += d if number else 0.0


@kernel
def add_spread(x: Floats, lanes: int, scratch: Floats) -> None:
    for i in range(lanes):
        d = x[i] - scratch[SHIFT + i]
        number = d == d
        d = d if number else 0.0
        scratch[COUNT + i] += 1.0 if number else 0.0
        scratch[S1 + i] += d
        scratch[S2 + i] += d * d


@kernel
def add_line(x: Floats, k: float, lanes: int, scratch: Floats) -> None:
    kk = k * k
    for i in range(lanes):
        d = x[i] - scratch[SHIFT + i]
        number = d == d
        d = d if number else 0.0
        scratch[COUNT + i] += 1.0 if number else 0.0
        scratch[S1 + i] += d
        scratch[S2 + i] += d * d
        scratch[SK + i] += k if number else 0.0
        scratch[SKK + i] += kk if number else 0.0
        scratch[SKX + i] += k * d


@kernel
def add_some(group: int, memory: Floats, start: int, k: int, end: int, back: int, lanes: int, scratch: Floats) -> None:
    """Add bars k … end - 1 back, passing over what is missing."""
    for older in range(k, end):
        x = bars(memory, start, older, back, lanes)
        if group < SPREADS:
            add_mean(x, lanes, scratch)
        elif group == SPREADS:
            add_spread(x, lanes, scratch)
        else:
            add_line(x, float(older), lanes, scratch)


@kernel
def emit_moment(kind: int, out: Floats, window: float, least: float, ddof: float, scratch: Floats) -> None:
    if kind == EMIT_SUM:
        for i in range(len(out)):
            out[i] = enough(scratch[S1 + i], scratch[COUNT + i], least)
    elif kind == EMIT_MEAN:
        for i in range(len(out)):
            n = scratch[COUNT + i]
            out[i] = enough(mean_of(n, scratch[SHIFT + i], scratch[S1 + i]), n, least)
    elif kind == EMIT_STD:
        for i in range(len(out)):
            n = scratch[COUNT + i]
            out[i] = enough(std_of(n, scratch[S1 + i], scratch[S2 + i], ddof), n, least)
    else:
        for i in range(len(out)):
            value = weighted_of(window, scratch[SHIFT + i], scratch[S1 + i], scratch[SKX + i])
            out[i] = enough(value, scratch[COUNT + i], least)


@kernel
def emit_line(kind: int, out: Floats, newest: Floats, least: float, scratch: Floats) -> None:
    """The line through the window, see `slope_of`."""
    for i in range(len(out)):
        n, shift, s1, sk, skx = scratch[COUNT + i], scratch[SHIFT + i], scratch[S1 + i], scratch[SK + i], scratch[SKX + i]
        slope = value = slope_of(n, s1, sk, scratch[SKK + i], skx)
        if kind == EMIT_RESID:
            value = residual_of(n, newest[i] - shift, s1, sk, slope)
        elif kind == EMIT_RSQUARE:
            value = fit_of(n, shift, s1, scratch[S2 + i], sk, skx, slope)
        out[i] = enough(value, n, least)


@kernel
def moments(group: int, rows: Integers, numbers: Floats, memory: Floats, at: Integers, start: int, back: int, lanes: int,
            full: bool, scratch: Floats) -> None:  # fmt: skip
    """SUMS, MEANS, SPREADS or LINES of one node over growing windows; `rows` are its EMIT rows, shortest window first."""
    clear(scratch, COUNT, SKX, lanes)
    if group == SUMS:
        clear(scratch, SHIFT, SHIFT, lanes)
    else:
        newest_number(memory, start, back, rows[-1, WINDOW], lanes, scratch)
    k = 0
    for row in range(len(rows)):
        end = rows[row, WINDOW]
        if end > k and full:
            add_full(group, memory, start, k, end, back, lanes, scratch)
        elif end > k:
            add_some(group, memory, start, k, end, back, lanes, scratch)
        k = end
        kind, place, least = rows[row, OPCODE], at[rows[row, OUT]], float(rows[row, LEAST])
        out = memory[place : place + lanes]
        if EMIT_SLOPE <= kind <= EMIT_RESID:
            emit_line(kind, out, memory[start : start + lanes], least, scratch)
        else:
            emit_moment(kind, out, float(rows[row, WINDOW]), least, numbers[row], scratch)
