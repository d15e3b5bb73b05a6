"""The chain from a bar to what is wanted of it, put together once: adjust → context → features → models → ensemble → checks →
strategy → neutral → ordering.

A session steps it; over history the same steps give the bits of the batches of a run. What decides (models, the ensemble's
weights, the bounds of the checks) is replaced at the border of a fold, or when a champion is: all else goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidemill.domain.experiment import NeutraliseSpec, PredictionGuard
from tidemill.domain.intervals import Interval, epoch_microseconds
from tidemill.features.feature_set import FeatureSet
from tidemill.features.prices import average_price
from tidemill.features.state import FeatureState
from tidemill.features.stream import FeatureStream
from tidemill.market.adjusting import Adjusted, Adjuster
from tidemill.models.artifact import Artifact
from tidemill.models.inference import FrameStream, ModelStream, stream, warm
from tidemill.models.recent import Recent, RecentRows
from tidemill.models.registry import Engines
from tidemill.quality.validity import PastRange
from tidemill.strategies.base import Carried, Slots, Stepper, Strategy, Universe
from tidemill.strategies.neutral import Neutral
from tidemill.trading.account import Terms
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.checks import PredictionChecks
from tidemill.trading.context import Context, ContextState
from tidemill.trading.function_columns import FunctionColumns
from tidemill.trading.fused import Parts, fused
from tidemill.trading.ordering import AccountState, Desk, Ordering, Traded

if TYPE_CHECKING:
    import polars as pl

    from tidemill.strategies.base import Start

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]
_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _QUOTED = range(6)


class Links(NamedTuple):
    """What stays while deciders change. book: an engine's name, or None for the ensemble.

    features: those that steps can take, functions of modules by their tail. half_life: of the sentiment. known: where the
    engines are found. fused: whether links that can go together in one compiled call do, which changes no bit.
    """

    interval: Interval
    features: FeatureSet
    half_life: float
    validation: PredictionGuard
    strategy: Strategy
    params: msgspec.Struct
    neutralise: NeutraliseSpec | None
    book: str | None
    known: Engines
    fused: bool = True


class Deciding(NamedTuple):
    """What a decider holds. engines: name → model, in the order of the experiment. ensemble: over their names; None where one
    engine is traded for itself.

    bounds: `validity.feature_bounds` of the training window. past: engine → range of what it said before.
    """

    engines: Mapping[str, Artifact]
    ensemble: Artifact | None
    bounds: pl.DataFrame
    past: Mapping[str, PastRange | None]


class Wanted(NamedTuple):
    """What a slot came to. features: [symbols, features]. predictions, rejected: [symbols, engines + 1], the ensemble last.

    weights: [symbols], NaN where nothing is asked. traded: what they made of the account, where there is one.
    """

    features: Floats
    predictions: Floats
    rejected: Flags
    weights: Floats
    traded: Traded | None = None


class ChainState(NamedTuple):
    """What a chain goes on from; the models begin anew from `recent`, which is all that they remember."""

    adjust: Adjusted
    context: ContextState
    features: FeatureState
    recent: RecentRows
    strategy: Carried
    neutral: Carried | None
    account: AccountState | None = None
    tails: RecentRows | None = None


class _InForce:
    """A decider while it is in force: the processes in which modules are stepped live as long."""


class Chain:
    """The links of one book over the symbols of a universe, from `state` on (None: the dataset's first bar).

    since: from when predictions count and anything is asked, at the anchor or later (None: the anchor). Before it all warms up.
    desk: under what an account trades what is asked, from then on; None: weights are all that is wanted.
    """

    def __init__(
        self,
        links: Links,
        universe: Universe,
        deciding: Deciding,
        state: ChainState | None = None,
        *,
        since: datetime | None = None,
        desk: Desk | None = None,
    ) -> None:
        symbols = universe.symbols
        self._links, self._universe, self._since, self._length = links, universe, since, links.interval.microseconds
        self._adjuster = Adjuster(symbols, state.adjust if state else None)
        self._context = Context(symbols, links.half_life, state.context if state else None)
        self._features = FeatureStream(links.features.compiled, symbols, state.features if state else None)
        self._reads_context = bool(self._features.context)
        tails = state.tails if state else None
        self._tails = FunctionColumns(links.features, symbols, tails) if links.features.functions else None
        self._recent = Recent(symbols, len(links.features.names), state.recent if state else None)
        carried = state.neutral if state else None
        self._neutral = None if links.neutralise is None else Neutral(links.neutralise, universe, carried)
        self._strategy = self._started(links.strategy.start, state.strategy if state else None)
        self._ordering = None if desk is None else Ordering(symbols, desk, state.account if state else None)
        self.decide_by(deciding)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what strategy and neutrality left out, cut, replaced or closed so far."""
        return (*self._strategy.notes, *(() if self._neutral is None else self._neutral.notes))

    def decide_by(self, deciding: Deciding, terms: Terms | None = None) -> None:
        """From the next slot on. Models begin with the bars that they look back at, the rest goes on.

        terms: under which the account trades from now on; None: as before.
        """
        if self._ordering is not None and terms is not None:
            self._ordering.trade_under(terms)
        links, names = self._links, tuple(deciding.engines)
        self._in_force = _InForce()  # the processes of the one before end here
        self._begin_functions()
        known = links.known.begun(self._in_force)
        place = {name: at for at, name in enumerate(links.features.names)}
        symbols = self._universe.symbols
        self._models = [
            (stream(model, symbols, known), np.array([place[name] for name in model.inputs.features]))
            for model in deciding.engines.values()
        ]
        self._ensemble = None if deciding.ensemble is None else stream(deciding.ensemble, symbols, links.known)
        self._checks = PredictionChecks(links.validation, links.features.names, deciding.bounds, names, deciding.past)
        self._traded = len(names) if links.book is None else names.index(links.book)
        looked_back = [links.known.find(model.inputs.engine).info.history for model in deciding.engines.values()]
        self._recent.keep(max(looked_back, default=0))
        alone = links.fused and self._neutral is None and self._tails is None
        self._fused = fused(self._parts()) if alone else None
        for values, present, open_time in self._recent.slots():
            for (model, columns), history in zip(self._models, looked_back, strict=True):
                if history:
                    warm(model, np.ascontiguousarray(values[:, columns]), present, open_time)

    def _begin_functions(self) -> None:
        """Those of modules beside the engines, in processes of their own; what the chain carries for them goes on."""
        if self._tails is not None:
            self._tails.begin(self._in_force)
        if self._links.strategy.begin is not None:
            self._strategy = self._started(self._links.strategy.begin(self._in_force), self._strategy.state())

    def _started(self, start: Start | None, state: Carried | None) -> Stepper:
        assert start is not None  # nosec B101  # `Links` are of what steps
        return start(self._links.params, self._universe, state)

    def step(self, bars: BarsOfSlot) -> Wanted:
        """Take one closed slot. Arrays of the answer are the chain's own until the next step."""
        opened = epoch_microseconds(bars.open_time)
        if self._fused is not None:
            asking, closes = self._asking(bars), opened + self._length
            silent = not asking and self._since is not None
            return Wanted(*self._fused.step(bars, opened, closes, asking=asking, silent=silent))
        rows = self._adjuster.step(opened, bars.rows, bars.present, bars.actions)
        context = self._known(bars, opened + self._length) if self._reads_context else {}
        vwap = average_price(rows[_HIGH], rows[_LOW], rows[_CLOSE], rows[_VOLUME], rows[_QUOTED])
        stepped = self._features.step(
            rows[_OPEN],
            rows[_HIGH],
            rows[_LOW],
            rows[_CLOSE],
            rows[_VOLUME],
            vwap,
            bars.present,
            open_time=bars.open_time,
            context=context,
        )
        values = np.ascontiguousarray(
            stepped if self._tails is None else self._tails.step(stepped, rows, bars.present, bars.open_time)
        )
        self._recent.push(values, bars.present, bars.open_time)
        predictions = self._predicted(values, bars, silent=self._since is not None and not self._asking(bars))
        rejected = self._checks.step(values, predictions[:, :-1], bars.present)
        counting = np.where(rejected[:, self._traded], np.nan, predictions[:, self._traded])
        weights = self._weights(bars, counting, rows[_CLOSE])
        return Wanted(values, predictions, rejected, weights, self._traded_at(bars, opened, weights))

    def state(self) -> ChainState:
        """After the last step."""
        return ChainState(
            self._adjuster.state(),
            self._context.state(),
            self._features.state(),
            self._recent.state(),
            self._strategy.state(),
            None if self._neutral is None else self._neutral.state(),
            None if self._ordering is None else self._ordering.state(),
            None if self._tails is None else self._tails.state(),
        )

    def _known(self, bars: BarsOfSlot, closes: int) -> dict[str, float | Floats]:
        return self._context.step(closes, bars.present, bars.index_versions, bars.news)

    def _parts(self) -> Parts:
        return Parts(
            self._universe,
            self._adjuster,
            self._features,
            self._models,
            self._ensemble,
            self._checks,
            self._traded,
            self._strategy,
            self._ordering,
        )

    def _asking(self, bars: BarsOfSlot) -> bool:
        return bars.number >= 0 if self._since is None else bars.open_time >= self._since

    def _traded_at(self, bars: BarsOfSlot, opened: int, weights: Floats) -> Traded | None:
        if self._ordering is None:
            return None
        self._ordering.tell(bars.actions)
        if not self._asking(bars):
            return None
        return self._ordering.step(bars, opened, opened + self._length, weights)

    def _weights(self, bars: BarsOfSlot, predictions: Floats, close: Floats) -> Floats:
        """Before the anchor nothing is predicted out of sample: the strategy warms up on bars alone."""
        asking = self._asking(bars)
        out_of_sample = bars.present & asking
        slot = Slots(
            np.array([bars.number]),
            bars.own[None],
            out_of_sample[None],
            np.where(out_of_sample, predictions, np.nan)[None],
            bars.present[None],
            np.where(bars.present, close, np.nan)[None],
            np.array([epoch_microseconds(bars.open_time)]),
        )
        weights = self._strategy.scan(slot)
        made: Floats = (weights if self._neutral is None else self._neutral.scan(weights, slot.close))[0]
        return made if asking or self._since is None else np.full_like(made, np.nan)

    def _predicted(self, values: Floats, bars: BarsOfSlot, *, silent: bool) -> Floats:
        """silent: nothing is asked yet; models of frames say nothing then, since a call with one costs milliseconds."""
        made = np.full((len(self._universe.symbols), len(self._models) + 1), np.nan)
        for at, (model, columns) in enumerate(self._models):
            own = np.ascontiguousarray(values[:, columns])
            if silent and isinstance(model, FrameStream):
                model.remember(own, bars.present, bars.open_time)
            else:
                made[:, at] = model.step(own, bars.present, open_time=bars.open_time)
        if self._ensemble is not None:
            made[:, -1] = _of_ensemble(self._ensemble, made[:, :-1], bars.present)
        return made


def _of_ensemble(ensemble: ModelStream, predictions: Floats, present: Flags) -> Floats:
    return ensemble.step(np.ascontiguousarray(predictions), present)
