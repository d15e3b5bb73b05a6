"""Numbers that the program table and the kernels share. A kernel source: it counts in the fingerprint.

A program is a table of rows `(opcode, out, a, b, c, window, least, slot, emits)`: `out`, `a`, `b`, `c` are node numbers,
`least` the
numbers a window must hold, `slot` the first place of carried state, `emits` how many EMIT rows follow. A group row scans one
window
of growing length once; each of its EMIT rows (opcode = what to emit) takes a value when its window is reached.
"""

OPCODE, OUT, A, B, C, WINDOW, LEAST, SLOT, EMITS = range(9)
FIELDS = 9
# numbers that belong to a row
FIGURES = 4

# element-wise
ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM, GREATER, GREATER_EQUAL, NOT_EQUAL, WHERE, ABSOLUTE, LOG, SQUARE_ROOT = range(
    13
)
LAST_ELEMENTWISE = SQUARE_ROOT
REF = 13
# groups: one scan from the newest value to the oldest, many windows
SUMS, MEANS, SPREADS, LINES, PAIRS, GREATEST, SMALLEST, ARG_OLDEST, ARG_NEWEST, RANKS, SORTED, DEVIATIONS, CHANGES = range(
    20, 33
)
# recursive
SMOOTH, ADAPTIVE, CUMULATIVE, SAR, AGE = range(40, 45)
# what an EMIT row of a group takes
EMIT_SUM, EMIT_MEAN, EMIT_STD, EMIT_SLOPE, EMIT_RSQUARE, EMIT_RESID, EMIT_WMA, EMIT_PLACE, EMIT_SINCE, EMIT_OTHER = range(
    60, 70
)
# of CHANGES, the differences x - ref(x, 1): sums of rises, falls and both, shares of bars that rose and that fell
EMIT_RISES, EMIT_FALLS, EMIT_MOVES, EMIT_ROSE, EMIT_FELL = range(70, 75)

SLOTS_OF_SAR = 7
# Lanes handled at once at most: bars of a symbol in a scan, symbols in a step (blocks.py takes fewer). The sums of a window
# stay within the first-level cache, the work area of 200 nodes within the second; a year of daily bars is one block.
BLOCK = 384
# What reaches it counts as infinite: sums of squares over any window then stay within float64, and nothing overflows unseen.
LIMIT = 1e150
# A window whose spread is no more than this share of its mean has no correlation and no fit (NUMBERS).
DEGENERATE = 1e-9
