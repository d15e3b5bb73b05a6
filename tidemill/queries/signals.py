"""Signals of an experiment as Postgres serves them."""

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.storage.results import signals_of
from tidemill.study.study import Study

_COLUMNS = ("symbol", "open_time", "weight", "direction", "confidence", "known_at", "expires_at", "status", "decider")


async def served_signals(study: Study, experiment: str, book: str | None = None) -> pl.DataFrame:
    """By time and symbol. experiment: its id. book: by default the one that it would trade.

    InputError where nothing is served.
    """
    chosen = book or study.experiment.promotion.book
    found = await signals_of(study.workspace.database, experiment, chosen)
    if found.is_empty():
        raise InputError(
            f"No signals of {chosen} of the experiment {study.experiment.name!r} are served. Run it first: `tidemill run`; "
            "those of books that it would not trade are served while it is tracked."
        )
    return found.select(_COLUMNS)
