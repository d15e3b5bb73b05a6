"""A decider made anew by the code and libraries that are here, once they are shown to decide as it did."""

from __future__ import annotations

from datetime import datetime

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError, StopError
from tidemill.steps.checks.causality import FEATURES, judge_causality
from tidemill.steps.trading.serving import ASKED
from tidemill.storage.deciders import StoredDecider, succeed
from tidemill.study.book import Span
from tidemill.study.deciders import Term, known_to, successor, terms_of
from tidemill.study.scheduled import asked_by
from tidemill.study.study import Study
from tidemill.study.tables import SIGNALS
from tidemill.trading.confidence import confidence
from tidemill.trading.decider import Decider, from_text, strangers, to_text

# So many of its own last bars are compared.
BARS = 500
# Signals are equal to the digit: what an order is made of says the same.
_EQUAL = 1e-9
_SAID = ("weight", "confidence")
_SIGNALS = {
    "symbol": pl.String(),
    "open_time": pl.Datetime("us", "UTC"),
    "weight": pl.Float64(),
    "confidence": pl.Float64(),
}


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that does not return: as it is stored, and by the code that is here; None where nothing is asked."""

    symbol: str
    open_time: datetime
    weight: float | None
    confidence: float | None
    weight_here: float | None
    confidence_here: float | None


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """succeeds: id of the old one, `id` of the new. bars: bar times that were compared, with so many signals on them.

    departures: those that do not return, in order of time. stored: whether the new one is in force now.
    """

    id: str
    succeeds: str
    book: str
    bars: int
    signals: int
    departures: tuple[Departure, ...]
    stored: bool


def renew(study: Study, row: StoredDecider, *, accept: bool = False) -> Renewal | None:
    """Make the successor of a decider in force, for the study of its experiment: the same artifacts by the code that is here.

    None where nothing is another one here. Its features are proven causal first, then its stored signals on its last `BARS`
    bars are made again. Where some do not return, or none is stored, nothing is kept unless `accept` says that this is known.

    InputError for one that is superseded, StopError for what cannot be stepped or is not proven.
    """
    held = from_text(row.content, row.id)
    if row.superseded_at is not None:
        raise InputError(
            f"The decider {row.id} was superseded on {row.superseded_at:%Y-%m-%d %H:%M} UTC. `tidemill deciders list` shows "
            "those in force."
        )
    if not strangers(held, known_to(study)):
        return None
    _require_proven(study, row.id)
    made = successor(study, held)
    done = _compared(study, row, made)
    if not accept and (done.departures or not done.signals):
        return done
    workspace = study.workspace
    if not workspace.call(succeed, workspace.database, row.id, made.id, to_text(made)):
        raise StopError(f"The decider {row.id} was superseded meanwhile. `tidemill deciders list` shows those in force.")
    return msgspec.structs.replace(done, stored=True)


def _require_proven(study: Study, name: str) -> None:
    """A chain that is stepped sees no later bar; what is handed to it from there are its features."""
    proof = judge_causality(study, FEATURES)
    if not proof.proof.holds:
        raise StopError(
            f"The decider {name} cannot be renewed, since its features are not proven causal here. {proof.sentence}"
        )


def _compared(study: Study, row: StoredDecider, made: Decider) -> Renewal:
    """The successor beside what is stored of the old one; nothing is kept."""
    times = _last_bars(study, row)
    stored = _stored_signals(study, row, times)
    here = _signals_here(study, row, made, times)  # also where there is nothing to compare: it must be shown to step
    return Renewal(
        id=made.id,
        succeeds=row.id,
        book=row.book,
        bars=len(times),
        signals=stored.height,
        departures=_departures(stored, here) if stored.height else (),
        stored=False,
    )


def _last_bars(study: Study, row: StoredDecider) -> pl.Series:
    return Span(row.valid_from, row.valid_to).of(study.times.to_frame()).to_series().tail(BARS)


def _stored_signals(study: Study, row: StoredDecider, times: pl.Series) -> pl.DataFrame:
    """symbol, open_time, weight, confidence at these times; empty where none of it is stored.

    They lie under the name that the study had when they were made: another source of a module gave it another one.
    """
    found = [pl.DataFrame(schema=_SIGNALS)]
    for key in study.lake.datasets(SIGNALS):
        held = study.lake.manifest(SIGNALS, key, row.book)
        if held is not None and row.id in held.metadata.get(ASKED, {}):
            own = study.lake.scan_partition(held).filter(pl.col("decider") == row.id)
            found = [own.select(*_SIGNALS).drop_nulls("weight").collect()]
    return _at(found[0], times)


def _at(rows: pl.DataFrame, times: pl.Series) -> pl.DataFrame:
    return rows.filter(pl.col("open_time").is_in(times.implode()))


def _signals_here(study: Study, row: StoredDecider, made: Decider, times: pl.Series) -> pl.DataFrame:
    """symbol, open_time, weight, confidence of what the chain asks for at these times, after all that decided before."""
    asked = asked_by(study, [*_before(study, row), Term(made, row.valid_from, row.valid_to)]).weights
    predictions, weights = asked["prediction"].to_numpy(), asked["weight"].to_numpy()
    sure = pl.Series("confidence", confidence(made.confidence, predictions, np.sign(weights)))
    return _at(asked.with_columns(sure).select(*_SIGNALS), times)


def _before(study: Study, row: StoredDecider) -> list[Term]:
    """Whose state it took over, without a hole; what a promotion made began with none."""
    found: list[Term] = []
    start = row.valid_from
    for term in reversed(terms_of(study, row.experiment, row.book) if row.made_for == "run" else []):
        if term.end == start:
            found, start = [term._replace(decider=successor(study, term.decider)), *found], term.start
    return found


def _departures(stored: pl.DataFrame, here: pl.DataFrame) -> tuple[Departure, ...]:
    both = stored.join(here, on=("symbol", "open_time"), how="full", coalesce=True, suffix="_here")
    other = pl.any_horizontal((pl.col(name) - pl.col(f"{name}_here")).abs().fill_null(1.0) > _EQUAL for name in _SAID)
    rows = both.filter(other).sort("open_time", "symbol")
    return tuple(Departure(**one) for one in rows.iter_rows(named=True))
