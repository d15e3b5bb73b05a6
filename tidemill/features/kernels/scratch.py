"""Places in the scratch array that scans of windows share, one block each.

Constant distances in one array let the compiler vectorise without alias checks.
"""

from tidemill.features.opcodes import BLOCK

SHIFT, COUNT, S1, S2, SK, SKK, SKX = 0, BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK, 5 * BLOCK, 6 * BLOCK
# pairs: two shifts, sums, squares and products
SHIFT_Y, SX, SY, SXX, SYY, SXY = 2 * BLOCK, 3 * BLOCK, 4 * BLOCK, 5 * BLOCK, 6 * BLOCK, 7 * BLOCK
# changes: sums of rises, falls and both, counts of bars that rose and fell
RISES, FALLS, MOVES, ROSE, FELL = S1, S2, SK, SKK, SKX
SCRATCH = 8 * BLOCK
