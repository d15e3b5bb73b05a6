"""The chain of linear engines under `quantile` in one compiled call a slot; `Chain.step` says what it does, link by link.

What Python hands to compiled code costs more than most links do. So what such a chain works on is laid out once, and a slot is
`fused_kernel.slot_of_chain`, which calls the very entries that the links call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.features.stream import Arrays, FeatureStream
from tidemill.market.adjusting import Adjuster
from tidemill.models.ensemble import RankScorer
from tidemill.models.inference import ModelStream, RowStream
from tidemill.models.ridge import LinearScorer
from tidemill.strategies.base import Stepper, Universe
from tidemill.strategies.quantile import QuantileStepper
from tidemill.trading.addresses import addressed
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.checks import PredictionChecks
from tidemill.trading.fused_kernel import slot_of_chain
from tidemill.trading.ordering import Ordering, Traded

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


class Parts(NamedTuple):
    """The links of a chain, of which each has state of its own. columns: of each model, places among the features.

    traded: which prediction the strategy reads.
    """

    universe: Universe
    adjuster: Adjuster
    features: FeatureStream
    models: Sequence[tuple[ModelStream, Indices]]
    ensemble: ModelStream | None
    checks: PredictionChecks
    traded: int
    strategy: Stepper
    ordering: Ordering | None


class FusedSlot(NamedTuple):
    """As `Chain.step` answers."""

    features: Floats
    predictions: Floats
    rejected: Flags
    weights: Floats
    traded: Traded | None


class Fused:
    """The parts of a chain, stepped together; what they remember stays theirs."""

    def __init__(self, parts: Parts, bound: Arrays, learnt: Sequence[LinearScorer]) -> None:
        assert isinstance(parts.strategy, QuantileStepper)  # nosec B101  # as `fused` found
        self._parts, self._limit = parts, learnt[0].limit
        self._table, result = bound.table, bound.result
        symbols, engines = len(parts.universe.symbols), len(learnt)
        mixture = parts.ensemble.score.weights if isinstance(parts.ensemble, RowStream) else np.zeros(0)  # type: ignore[attr-defined]
        (standing, params), rules = parts.strategy.ranking, parts.checks.rules
        self._values, self._weights = np.full((symbols, result.shape[0]), np.nan), np.full((1, symbols), np.nan)
        self._predictions = np.full((symbols, engines + 1), np.nan)
        self._rejected = np.zeros((symbols, engines + 1), np.bool_)
        self._arrays: tuple[NDArray[Any], ...] = (
            *parts.adjuster.arrays, bound.rows, result, self._values, bound.present, bound.times,
            np.ones((1, symbols), np.bool_), np.zeros(1, np.int64),
            np.array([part for one in learnt for part in one.learnt]), np.array([one.intercept for one in learnt]),
            np.empty(symbols), np.empty((symbols, engines)), self._predictions, mixture,
            np.array(rules[:4]), rules.bounds, rules.past, np.empty(symbols), self._rejected,
            *standing, parts.universe.can_short, np.array([params.every, params.quantile, params.gross, params.max_weight]),
            np.zeros((1, symbols), np.bool_), np.empty((1, symbols)), self._weights,
        )  # fmt: skip
        self._places = addressed(self._arrays)

    def step(self, bars: BarsOfSlot, opened: int, closes: int, *, asking: bool, silent: bool) -> FusedSlot:
        """One slot. asking: predictions count. silent: nothing may be asked of the account yet."""
        parts, ordering = self._parts, self._parts.ordering
        parts.adjuster.count(opened, bars.rows, bars.present, bars.actions)
        parts.features.take(opened, bars.present)
        trades, numbers = False, (0, opened, closes, 0.0, True, False)
        if ordering is not None:
            ordering.tell(bars.actions)
            trades, numbers = asking, ordering.begin(bars, opened, closes) if asking else numbers
        table = self._table if ordering is None else ordering.table
        slot_of_chain(
            self._places, self._table, table, bars.rows, bars.present, bars.own, bars.number,
            self._limit, parts.traded, asking, silent, trades, *numbers,
        )  # fmt: skip
        traded = ordering.end(opened) if ordering is not None and trades else None
        return FusedSlot(self._values, self._predictions, self._rejected, self._weights[0], traded)


def fused(parts: Parts) -> Fused | None:
    """None where a link is of another kind: a feature of a second stage, an engine that is not linear, another strategy."""
    bound, every = parts.features.arrays, np.arange(len(parts.features.features.names))
    scorers = [model.score if isinstance(model, RowStream) else None for model, _ in parts.models]
    learnt = [score for score in scorers if isinstance(score, LinearScorer)]
    whole = all(np.array_equal(columns, every) for _, columns in parts.models)
    mixed = parts.ensemble is None or (isinstance(parts.ensemble, RowStream) and isinstance(parts.ensemble.score, RankScorer))
    if bound is None or not learnt or len(learnt) < len(scorers) or not whole or not mixed:
        return None
    return Fused(parts, bound, learnt) if isinstance(parts.strategy, QuantileStepper) else None
