"""Operators across the symbols of one bar time. The sums run over sorted values, so the order of symbols changes no bit."""

import math

import numpy as np

from tidemill.compiled import entry, kernel
from tidemill.features.arrays import Floats, Integers
from tidemill.features.opcodes import DEGENERATE

RANK, ZSCORE = 0, 1


@kernel
def ranks_of_row(values: Floats, order: Integers, count: int) -> None:
    """Replace the first `count` numbers by their percentiles; equals share the average of their ranks."""
    begin = 0
    while begin < count:
        end = begin + 1
        while end < count and values[order[end]] == values[order[begin]]:
            end += 1
        percentile = (begin + end + 1) / 2.0 / count
        for k in range(begin, end):
            values[order[k]] = percentile
        begin = end


@kernel
def scores_of_row(values: Floats, order: Integers, count: int) -> None:
    """Replace the first `count` numbers by their distance to the mean in sample standard deviations."""
    total = 0.0
    for k in range(count):
        total += values[order[k]]
    mean, squares = total / count, 0.0
    for k in range(count):
        squares += (values[order[k]] - mean) ** 2
    deviation = math.sqrt(squares / (count - 1)) if count > 1 else 0.0
    known = DEGENERATE * math.fabs(mean) < deviation < math.inf
    for k in range(count):
        values[k] = (values[k] - mean) / deviation if known else np.nan


@entry
def across(operator: int, values: Floats, order: Integers, starts: Integers) -> None:
    """Compare `values` within rows of symbols, in place. Row r are the places order[starts[r]] … order[starts[r + 1] - 1].

    NaN takes no part and stays.
    """
    for row in range(len(starts) - 1):
        places = order[starts[row] : starts[row + 1]]
        present = np.empty(len(places))
        count = 0
        for place in places:
            if values[place] == values[place]:
                present[count] = values[place]
                count += 1
        if count == 0:
            continue
        ascending = np.argsort(present[:count])
        if operator == RANK:
            ranks_of_row(present, ascending, count)
        else:
            scores_of_row(present, ascending, count)
        count = 0
        for place in places:
            if values[place] == values[place]:
                values[place] = present[count]
                count += 1
