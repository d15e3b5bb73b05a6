"""A strategy of a user's function that steps: at each slot the function sees the predictions of the newest slots alone.

A prediction stands while its symbol's market is closed, as for the strategies that rank (see `ranking`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.parameters import accepted, parameters_of
from tidemill.strategies.base import Carried, Slots, Strategy, Universe, carried, unasked
from tidemill.strategies.custom import GIVEN, about_of, asked_of

if TYPE_CHECKING:
    from tidemill.strategies.base import Floats, Indices, Start

_NEVER = -(2**63)
# newest → the function over predictions, asked for so many of their newest times.
Weighing = Callable[[int], Callable[..., Any]]


def by_tail_strategy(
    name: str,
    weigh: Callable[[object | None, int], Callable[..., Any]],
    *,
    by_tail: int,
    needs: Literal["predictions"] = "predictions",
    resize: bool = True,
    about: str = "",
    source: str = "",
) -> Strategy:
    """As `custom.custom_strategy`, for one that steps. weigh: owner, newest → the function, asked for so many of the newest
    times, in a process that lives as long as the owner; None: in one for each call.
    """

    def begin(owner: object | None) -> Start:
        return partial(_Stepper, name, partial(weigh, owner), by_tail)

    params = parameters_of(weigh(None, 0), name, GIVEN)
    return Strategy(
        name=name,
        about=about or about_of(weigh(None, 0)),
        needs=needs,
        params=params,
        start=begin(None),
        begin=begin,
        resize=resize,
        source=source,
    )


class _Stepper:
    """See `Stepper`. count: slots that the function sees, of those at which anything was predicted."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, name: str, weigh: Weighing, count: int, params: msgspec.Struct, universe: Universe, state: Carried | None
    ) -> None:
        self._name, self._weigh, self._params, self._symbols = name, weigh, params, universe.symbols
        self._standing = carried(state, "standing", universe.symbols, np.nan)
        self._seen = carried(state, "seen", universe.symbols, np.nan, rows=(count - 1,))
        self._times: Indices = np.full(count - 1, _NEVER) if state is None else state.whole["times"].copy()

    def scan(self, slots: Slots) -> Floats:
        assert slots.opens is not None  # nosec B101  # the doors to strategies of one's own tell times
        standing, weights = self._stood(slots), unasked(slots)
        asked = np.flatnonzero(np.isfinite(slots.prediction).any(axis=1))
        if not len(asked):
            return weights
        seen, times = np.concatenate([self._seen, standing[asked]]), np.concatenate([self._times, slots.opens[asked]])
        self._seen, self._times = seen[len(asked) :], times[len(asked) :]
        answer = self._asked(self._frame(seen, times), len(asked))
        rows = np.searchsorted(slots.opens, answer["open_time"].to_physical().to_numpy())
        places = np.searchsorted(np.array(self._symbols), answer["symbol"].to_numpy())
        weights[rows, places] = answer["weight"].fill_null(float("nan")).to_numpy()
        return weights

    def state(self) -> Carried:
        by_symbol = {"standing": self._standing.copy(), "seen": self._seen.copy()}
        return Carried(self._symbols, by_symbol, {"times": self._times.copy()})

    def _stood(self, slots: Slots) -> Floats:
        """What stands of each symbol at each slot."""
        made = np.empty(slots.prediction.shape)
        for at, prediction in enumerate(slots.prediction):
            self._standing = np.where(slots.own[at] | np.isfinite(prediction), prediction, self._standing)
            made[at] = self._standing
        return made

    def _frame(self, seen: Floats, times: NDArray[np.int64]) -> pl.DataFrame:
        """symbol, open_time, prediction of what stood, sorted."""
        symbols, slots = np.nonzero(np.isfinite(seen.T) & (times != _NEVER))
        return pl.DataFrame([
            pl.Series("symbol", self._symbols, dtype=pl.String).gather(symbols),
            pl.Series("open_time", times[slots]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            pl.Series("prediction", seen[slots, symbols]),
        ])  # fmt: skip

    def _asked(self, frame: pl.DataFrame, newest: int) -> pl.DataFrame:
        weigh = self._weigh(newest)
        answer = asked_of(self._name, weigh, frame, accepted(weigh, msgspec.to_builtins(self._params), 1))
        return answer.filter(pl.col("open_time").is_in(frame["open_time"].unique().sort().tail(newest).implode()))
