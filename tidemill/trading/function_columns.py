"""Features that functions of modules answer, slot by slot: each is given the newest bars of every symbol, as in research."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from tidemill.features.external import Function, Run
from tidemill.features.feature_set import FeatureSet
from tidemill.market.adjusting import COLUMNS
from tidemill.models.recent import Recent, RecentRows

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class FunctionColumns:
    """The columns of a set beside those of the kernels. `begin` comes before the first step."""

    def __init__(self, features: FeatureSet, symbols: Sequence[str], state: RecentRows | None = None) -> None:
        self._features, self._place = features, {name: at for at, name in enumerate(features.names)}
        self._bars = Recent(symbols, len(COLUMNS), state)
        self._bars.keep(max(function.lookback or 1 for function in features.functions))
        self._compiled = [self._place[name] for name in features.compiled.names]
        self._running: list[tuple[Function, Run]] = []

    def begin(self, owner: object) -> None:
        """The functions from here on run in processes that live as long as `owner`."""
        self._running = [(one, one.begin(owner)) for one in self._features.functions if one.begin is not None]

    def step(self, computed: Floats, rows: Floats, present: Flags, open_time: datetime) -> Floats:
        """All columns [symbols, features]. computed: those of the kernels. rows: adjusted [`adjusting.COLUMNS`, symbols]."""
        self._bars.push(np.ascontiguousarray(rows.T), present, open_time)
        made = np.full((len(present), len(self._place)), np.nan)
        made[:, self._compiled] = computed
        for function, run in self._running if present.any() else ():
            answer = run(self._bars.rows(function.lookback or 1).frame(COLUMNS))
            for name in self._place.keys() & set(function.columns):
                made[present, self._place[name]] = answer[name].to_numpy()
        return made

    def state(self) -> RecentRows:
        """After the last step."""
        return self._bars.state()
