"""Signals of an experiment as Postgres serves them."""

import polars as pl

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.storage.results import signals_of
from tidemill.study.scoring import books
from tidemill.study.study import Study

_COLUMNS = ("symbol", "open_time", "weight", "direction", "confidence", "known_at", "expires_at", "status", "decider")


async def served_signals(study: Study, experiment: str, book: str | None = None) -> pl.DataFrame:
    """By time and symbol. experiment: its id. book: by default the one that it would trade.

    UnknownNameError for a book that the experiment does not have, InputError where nothing is served.
    """
    traded = study.experiment.promotion.book
    chosen = book or traded
    if chosen not in books(study):
        raise UnknownNameError("book in this experiment", chosen, books(study))
    found = await signals_of(study.workspace.database, experiment, chosen)
    if found.is_empty():
        others = chosen != traded and not (await signals_of(study.workspace.database, experiment, traded)).is_empty()
        raise InputError(_only_traded(study, chosen) if others else _nothing(study, chosen))
    return found.select(_COLUMNS)


def _nothing(study: Study, book: str) -> str:
    return f"No signals of {book} of the experiment {study.experiment.name!r} are served. Run it first: `tidemill run`."


def _only_traded(study: Study, book: str) -> str:
    """Of an experiment that was run and is not tracked."""
    name, traded = study.experiment.name, study.experiment.promotion.book
    return (
        f"Of the experiment {name!r} only the signals of {traded}, the book that it would trade, are served, since it is not "
        f"tracked. For those of {book} write promotion: {{book: {book}}} and run it again; "
        "where its bars go on, `tidemill experiments track` serves those of all books from the next run on."
    )
