"""Ranking symbols by their prediction at each rebalancing time: what the strategies over predictions share.

A rebalancing time is every `every`-th slot of the book's calendar, counted from its anchor, so neither later data nor a slot
at which nothing was predicted moves any. At such a time every symbol that predictions have named by then gets a weight: what is
not chosen, or has no prediction now, gets 0; what is listed later is not there yet. Equal predictions rank by symbol; where all
are equal nothing is held, since there is no opinion. Where nothing at all is predicted, nothing is asked.

While a symbol's market is closed its newest prediction stands: a book of coins and stocks ranks all of them on a Sunday too. A
slot of its own at which a symbol has no prediction ends what stood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from tidemill.strategies.base import Carried, Slots, Universe, carried

if TYPE_CHECKING:
    from tidemill.strategies.ranking_kernel import SlotPredictions, Standing

Quantile = Annotated[float, Meta(gt=0.0, le=0.5)]  # of the symbols, on each side


def standing_of(universe: Universe, state: Carried | None) -> Standing:
    """What stands of a universe: nothing, or what `state` says; a symbol that it does not know is not listed yet."""
    import numpy as np

    from tidemill.strategies.ranking_kernel import Standing

    symbols = len(universe.symbols)
    newest = carried(state, "newest", universe.symbols, np.nan)
    listed = carried(state, "listed", universe.symbols, 0.0) > 0.0
    return Standing(newest, listed, np.zeros(symbols, np.int64), np.zeros(symbols, np.int64))


def standing_state(universe: Universe, standing: Standing) -> Carried:
    """What `standing_of` goes on from."""
    return Carried(universe.symbols, {"newest": standing.newest.copy(), "listed": standing.listed.astype(float)})


def slot_predictions(slots: Slots) -> SlotPredictions:
    """What a ranking reads of slots."""
    from tidemill.strategies.ranking_kernel import SlotPredictions

    return SlotPredictions(slots.number, slots.own, slots.predicted, slots.prediction)
