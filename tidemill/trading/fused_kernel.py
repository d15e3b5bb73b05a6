"""A whole slot of the chain in one compiled call: the entries of its links, one after the other, over arrays made once."""

import numpy as np

from tidemill.compiled import entry, kernel
from tidemill.features.kernels.bound import ADDRESS, COLUMNS, ROWS, array_over, flags, floats, floats_by_row, integers
from tidemill.features.kernels.execute import execute
from tidemill.features.kernels.pointers import flags_from
from tidemill.features.prices import average_of
from tidemill.market.adjusting import adjust_rows
from tidemill.matching.rules import Flags, Floats
from tidemill.models.kernels.linear import linear_rows
from tidemill.models.kernels.ranks import apart_of_ranks, mean_of_ranks
from tidemill.strategies.ranking_kernel import SlotPredictions, Standing, quantile_weights
from tidemill.trading.account import Indices
from tidemill.trading.checks import judge_slot
from tidemill.trading.ordering_kernel import order_slot

# Places of the table.
FACTOR, SPLIT, ADJUSTED, BARS, RESULT, VALUES, PRESENT, TIMES, OWN, NUMBER = range(10)
LEARNT, INTERCEPTS, SCORED, SCORES, PREDICTIONS, MIXTURE = range(10, 16)
LIMITS, BOUNDS, PAST, APART, REJECTED = range(16, 21)
STANDING, CAN_SHORT, PARAMS, PREDICTED, PREDICTION, WEIGHTS = 21, 25, 26, 27, 28, 29
# Rows of an engine in LEARNT, and of adjusted bars.
LEARNT_ROWS = 5
_HIGH, _LOW, _CLOSE, _VOLUME, _QUOTED, _AVERAGE = 1, 2, 3, 4, 5, 5


@kernel
def _flags_by_row(table: Indices, place: int) -> Flags:
    made: Flags = array_over(flags_from(table[place, ADDRESS]), (table[place, ROWS], table[place, COLUMNS]))
    return made


@kernel
def _arrive(table: Indices, came: Flags, own: Flags, number: int, opened: int) -> None:
    present, times, follows = flags(table, PRESENT), integers(table, TIMES), _flags_by_row(table, OWN)
    for j in range(present.size):
        present[j], follows[0, j] = came[j], own[j]
        if came[j]:
            times[j] = opened
    integers(table, NUMBER)[0] = number


@kernel
def _adjust(table: Indices, rows: Floats) -> None:
    """Into the columns that the features read."""
    adjusted, bars = floats_by_row(table, ADJUSTED), floats_by_row(table, BARS)
    adjust_rows(rows, floats(table, FACTOR), floats(table, SPLIT), adjusted)
    for j in range(adjusted.shape[1]):
        for row in range(_VOLUME + 1):
            bars[row, j] = adjusted[row, j]
        bars[_AVERAGE, j] = average_of(
            adjusted[_HIGH, j], adjusted[_LOW, j], adjusted[_CLOSE, j], adjusted[_VOLUME, j], adjusted[_QUOTED, j]
        )


@kernel
def _turn(result: Floats, values: Floats) -> None:
    for symbol in range(values.shape[0]):
        for feature in range(values.shape[1]):
            values[symbol, feature] = result[feature, symbol]


@kernel
def _predict(table: Indices, values: Floats, present: Flags, limit: float) -> None:
    """Every engine's predictions, and beside them those of the ensemble, where there is one."""
    learnt, intercepts, scored = floats_by_row(table, LEARNT), floats(table, INTERCEPTS), floats(table, SCORED)
    scores, predictions, mixture = floats_by_row(table, SCORES), floats_by_row(table, PREDICTIONS), floats(table, MIXTURE)
    symbols, engines = scores.shape
    for engine in range(engines):
        own = learnt[LEARNT_ROWS * engine : LEARNT_ROWS * (engine + 1)]
        linear_rows(values, own[0], own[1], own[2], own[3], own[4], intercepts[engine], limit, scored)
        for j in range(symbols):
            scores[j, engine] = predictions[j, engine] = scored[j] if present[j] else np.nan
    if mixture.size > 0:
        mean_of_ranks(scores, mixture, scored)
    for j in range(symbols):
        predictions[j, engines] = scored[j] if mixture.size > 0 and present[j] else np.nan


@kernel
def _judge(table: Indices, values: Floats, present: Flags) -> None:
    scores, apart, limits = floats_by_row(table, SCORES), floats(table, APART), floats(table, LIMITS)
    bounds, past, rejected = floats_by_row(table, BOUNDS), floats_by_row(table, PAST), _flags_by_row(table, REJECTED)
    apart_of_ranks(scores, present, apart)
    judge_slot(values, scores, apart, limits[0], limits[1], limits[2], limits[3], bounds, past, rejected)


@kernel
def _weigh(table: Indices, present: Flags, traded: int, asking: bool, silent: bool) -> None:
    predictions, rejected = floats_by_row(table, PREDICTIONS), _flags_by_row(table, REJECTED)
    predicted, prediction, weights = (
        _flags_by_row(table, PREDICTED),
        floats_by_row(table, PREDICTION),
        floats_by_row(table, WEIGHTS),
    )
    for j in range(present.size):
        counts = asking and present[j]
        predicted[0, j] = counts
        prediction[0, j] = predictions[j, traded] if counts and not rejected[j, traded] else np.nan
        weights[0, j] = np.nan
    given = SlotPredictions(integers(table, NUMBER), _flags_by_row(table, OWN), predicted, prediction)
    standing = Standing(
        floats(table, STANDING), flags(table, STANDING + 1), integers(table, STANDING + 2), integers(table, STANDING + 3)
    )
    at = floats(table, PARAMS)
    quantile_weights(given, standing, flags(table, CAN_SHORT), int(at[0]), at[1], at[2], at[3], weights)
    if silent:
        weights[0, :] = np.nan


@entry
def slot_of_chain(
    table: Indices,
    features: Indices,
    ordering: Indices,
    rows: Floats,
    came: Flags,
    own: Flags,
    number: int,
    limit: float,
    traded: int,
    asking: bool,
    silent: bool,
    trades: bool,
    slot: int,
    opens: int,
    closes: int,
    elapsed: float,
    contiguous: bool,
    apart: bool,
) -> None:
    """The links of `chain.Chain.step` in their order. silent: nothing may be asked yet. trades: an account takes what is asked.

    came, own: [symbols] who has a bar, whose calendar has this slot. number: of the slot. limit: see `linear_rows`. traded:
    which prediction the strategy reads. The others: see `order_slot`.
    """
    _arrive(table, came, own, number, opens)
    present = flags(table, PRESENT)
    _adjust(table, rows)
    execute(True, features)
    values = floats_by_row(table, VALUES)
    _turn(floats_by_row(table, RESULT), values)
    _predict(table, values, present, limit)
    _judge(table, values, present)
    _weigh(table, present, traded, asking, silent)
    if trades:
        order_slot(ordering, rows, floats_by_row(table, WEIGHTS)[0], slot, opens, closes, elapsed, contiguous, apart)
