"""The strategy `mean_variance`: chosen as by `quantile`, weighted by expected return less λ times variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.experiment import Count, Exposure, Position
from tidemill.strategies.base import Carried, Strategy, Universe, carried, require
from tidemill.strategies.ranking import Quantile
from tidemill.strategies.sizing import Choice, SizedStepper, by_inverse, require_window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tidemill.strategies.optimise import Covariance
    from tidemill.strategies.past import Floats


class MeanVarianceParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """quantile, every, gross, max_weight, window, least: as in `inverse_volatility`.

    refit: rebalancings between two estimates of the covariance. most: symbols in the problem, the best and the worst of
    the chosen. ic: skill assumed in turning ranks into expected returns a bar. risk_aversion: λ of maximise w·μ − λ·variance.
    """

    quantile: Quantile = 0.2
    every: Count = 20
    gross: Exposure = 1.0
    max_weight: Position = 0.10
    window: int = 120
    least: int = 60
    refit: int = 1
    most: int = 50
    ic: float = 0.05
    risk_aversion: float = 10.0

    def __post_init__(self) -> None:
        require_window(self.window, self.least)
        require(self.refit >= 1, "refit must be at least 1 rebalancing")
        require(2 <= self.most <= 500, "most must be at least 2 and at most 500 symbols")
        require(0.0 < self.ic < 1.0, "ic must be above 0 and below 1")
        require(0.0 < self.risk_aversion < float("inf"), "risk_aversion must be above 0")


class _Stepper(SizedStepper):
    """Weights that maximise expected return less λ times variance, under the caps; the sides keep their sign.

    Where there is a short side the book is neutral in cash. Where the solver finds nothing, the weights are those of
    `inverse_volatility`, and a note says so. The covariance is estimated anew at every `refit`-th rebalancing from the anchor.
    """

    def __init__(self, params: MeanVarianceParams, universe: Universe, state: Carried | None) -> None:
        super().__init__(params, universe, state)
        self._estimate = None if state is None else _restored(state, universe)
        self._made = self._failed = 0

    @property
    def notes(self) -> tuple[str, ...]:
        told = f"The solver found no weights at {self._failed:,} of {self._made:,} times; inverse volatility was used."
        return (*super().notes, *((told,) if self._failed else ()))

    def size(self, choice: Choice) -> Floats:
        import numpy as np

        from tidemill.strategies.optimise import shrunk_covariance

        params = self._params
        if self._estimate is None or choice.number // params.every % params.refit == 0:
            self._estimate = shrunk_covariance(self.past.window, params.least)
        deviation = self._estimate.deviation
        self.unknown += int(((choice.side != 0.0) & ~np.isfinite(deviation)).sum())
        weight, solved = _weights(choice, deviation, self._estimate, params)
        self._made, self._failed = self._made + 1, self._failed + (not solved)
        return weight

    def state(self) -> Carried:
        made, estimate = super().state(), self._estimate
        if estimate is None:
            return made
        by_symbol = {**made.by_symbol, "place": estimate.place.astype(float), "deviation": estimate.deviation}
        return made._replace(by_symbol=by_symbol, whole={"covariance": estimate.matrix})


def _restored(state: Carried, universe: Universe) -> Covariance | None:
    """The estimate in a state; symbols that it does not know have no risk until the next."""
    import numpy as np

    from tidemill.strategies.optimise import Covariance

    if "covariance" not in state.whole:
        return None
    place = carried(state, "place", universe.symbols, -1.0).astype(np.int64)
    return Covariance(state.whole["covariance"], place, carried(state, "deviation", universe.symbols, np.nan))


def _weights(choice: Choice, deviation: Floats, estimate: Covariance, params: MeanVarianceParams) -> tuple[Floats, bool]:
    """Weights of the symbols of a choice, and False where the solver found none.

    μ of a symbol is ic × volatility × score (Grinold 1994, "Alpha is volatility times IC times score"), so engines of any
    scale are treated alike; the covariance is shrunk (Ledoit and Wolf 2004).
    """
    import numpy as np

    from tidemill.strategies.optimise import Bounds, optimal_weights

    chosen, weight = _problem(choice, deviation, params.most), np.zeros(len(choice.side))
    if not chosen.size:
        return weight, True
    side, own, budget = choice.side[chosen], deviation[chosen], choice.budget(params.gross)
    # A symbol alone has no rank: its own side is the whole opinion.
    score = np.where(np.isfinite(choice.score[chosen]), choice.score[chosen], side)
    bounds = Bounds(side, budget, params.max_weight, neutral=choice.both and choice.listed.sum() > 1)
    covariance = estimate.among(chosen)
    found = optimal_weights(params.ic * own * score, covariance, bounds, params.risk_aversion)
    weight[chosen] = by_inverse(side, own, budget, params.max_weight) if found is None else found
    return weight, found is not None


def _problem(choice: Choice, deviation: Floats, most: int) -> NDArray[np.int64]:
    """Indices of the chosen symbols that take part: of those with a known risk, the `most` with the strongest scores."""
    import numpy as np

    able = np.flatnonzero((choice.side != 0.0) & np.isfinite(deviation))
    if choice.both and len({*choice.side[able]}) < 2:
        return able[:0] if choice.listed.sum() > 1 else able  # one side alone would be a bet on the market
    strength = np.nan_to_num(np.abs(choice.score[able]), nan=0.0)
    return np.sort(able[np.argsort(-strength, kind="stable")[:most]])


STRATEGY = Strategy(
    name="mean_variance",
    about="Long the highest predictions, short the lowest where the venue allows it, sized by mean and variance.",
    needs="both",
    params=MeanVarianceParams,
    start=_Stepper,
)
