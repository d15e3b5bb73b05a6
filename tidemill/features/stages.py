"""The second stage of a feature set: fitted and cross-sectional operators, over the values that the kernels computed.

A scan and a step call the same functions, so their bits agree: a fitted operator takes one value after the other of each
symbol, a cross-sectional one a row of symbols, which in a step is the set of symbols present.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from tidemill.domain.intervals import EPOCH
from tidemill.features.arrays import Floats, Integers
from tidemill.features.declaration import Feature
from tidemill.features.expression import Expression, peel
from tidemill.features.kernels.cross import RANK, ZSCORE, across
from tidemill.features.kernels.markov import APPLIES_FROM, COUNT, HEAD, LIKELIHOOD, USED, markov
from tidemill.features.kernels.markov import FITTED as IS_FITTED
from tidemill.features.state import FeatureState

_ACROSS = {"cs_rank": RANK, "cs_zscore": ZSCORE}


@dataclass(frozen=True)
class Model:
    """One hidden Markov model a symbol. rows: row of the result → what it gets (0 the state, else that state's probability).

    numbers: states, refit, window, minimum, purge. slot: its first place among those that the second stage carries.
    """

    key: str
    rows: tuple[tuple[int, int], ...]
    numbers: tuple[int, ...]
    slot: int

    @property
    def states(self) -> int:
        return self.numbers[0]

    @property
    def places(self) -> int:
        states, _, window, _, purge = self.numbers
        return HEAD + states + states * (states + 3) + window + purge


@dataclass(frozen=True)
class Stages:
    """What follows the kernels. across: (row of the result, operator). slots: places of carried state a symbol."""

    models: tuple[Model, ...]
    across: tuple[tuple[int, int], ...]
    slots: int

    def carry(self, result: Floats, bounds: Integers, times: Integers, carried: Floats, offset: int) -> None:
        """Fitted operators over symbols whose values are the places bounds[s] … bounds[s + 1] - 1 of `result`, in place.

        carried: symbols × places; those of this stage begin at `offset`. times: epoch microseconds of the places.
        """
        for model in self.models:
            numbers = np.array(model.numbers, dtype=np.int64)
            begin, end = int(bounds[0]), int(bounds[-1])
            values = np.ascontiguousarray(result[model.rows[0][0], begin:end])
            out = np.empty((model.states + 1, end - begin))
            markov(values, bounds - begin, times[begin:end].copy(), carried, offset + model.slot, numbers, out)
            for row, wanted in model.rows:
                result[row, begin:end] = out[wanted]

    def compare(self, result: Floats, order: Integers, starts: Integers) -> None:
        """Cross-sectional operators over rows of symbols: order[starts[r]] … are the places of row r. In place."""
        for row, operator in self.across:
            across(operator, result[row], order, starts)


def rows_by_time(times: Integers) -> tuple[Integers, Integers]:
    """(places in the order of time, where each time starts and the end): the rows of a scan."""
    order = np.argsort(times, kind="stable")
    fresh = np.flatnonzero(np.diff(times[order])) + 1
    return order, np.concatenate([[0], fresh, [len(order)]]).astype(np.int64)


def plan(features: Iterable[Feature]) -> tuple[list[Expression], Stages]:
    """What the kernels have to compute for each feature, and the second stage. Deterministic, as the program is."""
    inner: list[Expression] = []
    compared: list[tuple[int, int]] = []
    fits: dict[tuple[str, tuple[int, ...]], list[tuple[int, int]]] = {}
    for row, feature in enumerate(features):
        kernels, fitted, across_symbols = peel(feature.expression)
        inner.append(kernels)
        if fitted is not None:
            states, wanted, *schedule = (int(number) for number in fitted.parameters)
            fits.setdefault((kernels.key, (states, *schedule)), []).append((row, wanted))
        if across_symbols is not None:
            compared.append((row, _ACROSS[across_symbols.operator]))
    models: list[Model] = []
    slot = 0
    for (key, numbers), rows in fits.items():
        models.append(Model(key, tuple(rows), numbers, slot))
        slot += models[-1].places
    return inner, Stages(tuple(models), tuple(compared), slot)


@dataclass(frozen=True)
class Fit:
    """Parameters in force for one symbol: an artifact of the fit whose values all came before `applies_from`.

    values: how many it was fitted on; `purge` more lie between them and the bar at `applies_from`. seen: values of the symbol
    so far. Arrays by state, the calmest first.
    """

    symbol: str
    states: int
    applies_from: datetime
    values: int
    purge: int
    seen: int
    log_likelihood: float
    start: Floats
    transitions: Floats
    means: Floats
    variances: Floats


def fits_of(state: FeatureState, stages: Stages, first_slot: int) -> list[Fit]:
    """The fits in force in a state, by symbol and model; symbols without one are left out.

    first_slot: places that the kernels carry.
    """
    found = []
    for place, symbol in enumerate(state.symbols):
        for model in stages.models:
            own = state.slots[place, first_slot + model.slot : first_slot + model.slot + model.places]
            if own[IS_FITTED] > 0.0:
                found.append(_fit(symbol, model, own))
    return found


def _fit(symbol: str, model: Model, own: Floats) -> Fit:
    states = model.states
    theta = own[HEAD + states :]
    square = states + states * states
    return Fit(
        symbol=symbol,
        states=states,
        applies_from=EPOCH + timedelta(microseconds=int(own[APPLIES_FROM])),
        values=int(own[USED]),
        purge=model.numbers[4],
        seen=int(own[COUNT]),
        log_likelihood=float(own[LIKELIHOOD]),
        start=theta[:states].copy(),
        transitions=theta[states:square].reshape(states, states).copy(),
        means=theta[square : square + states].copy(),
        variances=theta[square + states : square + 2 * states].copy(),
    )
