"""Signals as they are kept and served: what each asks for, by which decider, how sure, and until when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.calendars import NEVER, calendar_named, epochs
from tidemill.domain.market import Instrument
from tidemill.storage.content import content_version
from tidemill.study.deciders import Term
from tidemill.study.scoring import predicted_by
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.trading.confidence import confidence

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Nothing became of it yet; a live account says more.
PROPOSED = "proposed"


def signal_rows(study: Study, book: str, weights: pl.DataFrame, terms: Sequence[Term]) -> pl.DataFrame:
    """The weights of a book (symbol, open_time, weight) as signals, in their order.

    Beside them: known_at, the close at which they were decided; decider, its id; direction: 1 long, -1 short, 0 flat, null
    where nothing is asked; confidence: that the direction is right, see `trading.confidence`; expires_at: the close of the slot
    at whose open the order fills; status.
    """
    said = weights.select("symbol", "open_time").join(
        predicted_by(study, book), on=("symbol", "open_time"), how="left", maintain_order="left"
    )
    predictions = said["prediction"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    opens = epochs(weights["open_time"])
    direction = np.sign(weights["weight"].cast(pl.Float64).fill_null(float("nan")).to_numpy())
    at = np.maximum(np.searchsorted(epochs(pl.Series([term.start for term in terms])), opens, side="right") - 1, 0)
    sure = np.full(len(opens), np.nan)
    for place in np.unique(at):
        own = at == place
        sure[own] = confidence(terms[place].decider.confidence, predictions[own], direction[own])
    ids = pl.Series("decider", [term.decider.id for term in terms], dtype=pl.String)
    return weights.select(
        "symbol",
        "open_time",
        "weight",
        (pl.col("open_time") + study.dataset.interval.delta).alias("known_at"),
        ids.gather(at),
        pl.Series("direction", direction).fill_nan(None).cast(pl.Int32),
        pl.Series("confidence", sure),
        _expiry(study, weights["symbol"], opens).alias("expires_at"),
        pl.lit(PROPOSED).alias("status"),
    )


def versions_of(frame: pl.DataFrame) -> dict[str, str]:
    """Decider → version of what it asks for."""
    return {str(decider): content_version(rows) for (decider,), rows in frame.group_by("decider", maintain_order=True)}


def _expiry(study: Study, symbols: pl.Series, opens: Integers) -> pl.Series:
    """When the next slot of each symbol's calendar closes; null where none is known."""
    interval = study.dataset.interval
    instruments = study.once("instruments", lambda: instruments_of(study.workspace, study.dataset.venue))
    found = opens + 2 * interval.microseconds
    for name, own in _by_calendar(symbols, instruments).items():
        following = calendar_named(name).next_slots(interval, opens[own] + 1)
        found[own] = np.where(following == NEVER, NEVER, following + interval.microseconds)
    known = pl.Series(found).cast(pl.Int64)
    return known.replace(NEVER, None).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _by_calendar(symbols: pl.Series, instruments: Mapping[str, Instrument]) -> dict[str, Flags]:
    """Calendar → the rows of symbols that follow it."""
    named = {symbol: instruments[symbol].calendar for symbol in symbols.unique() if symbol in instruments}
    return {
        name: symbols.is_in([symbol for symbol, own in named.items() if own == name]).to_numpy() for name in set(named.values())
    }
