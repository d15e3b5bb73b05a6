"""Signals from predictions: one book for each engine, one for the ensemble, one for the benchmark."""

from __future__ import annotations

import msgspec
import polars as pl

from tidemill.provenance import fingerprint
from tidemill.steps.predictions.validity import validate_predictions
from tidemill.storage.results import withdraw_signals, write_signals
from tidemill.study import code as code_of
from tidemill.study.book import bars_versions, resolved, sees_bars, tested, weighed
from tidemill.study.freshness import StepReport, Table, drop_others, is_made_of, stored
from tidemill.study.rejections import tradable
from tidemill.study.scoring import books, predicted_by, prediction_versions
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, SIGNALS


class SignalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """neutralised_by: sector or beta; None for neither."""

    strategy: str
    neutralised_by: str | None
    predictions_rejected: int


def make_signals(study: Study) -> StepReport[SignalFacts]:
    """Target weights of every book from its predictions, by the experiment's strategy."""
    instruments = instruments_of(study.workspace, study.dataset.venue)
    chosen, known = resolved(study.experiment.strategy), study.registry.strategies
    code = fingerprint(known.code_version(chosen.name), code_of.signals())[:16]
    versions = bars_versions(study) if sees_bars(chosen, known) else None
    judged = validate_predictions(study)
    worked, table, notes = 0, [], []
    for book, version in prediction_versions(study).items():
        made_of = (code, chosen, sorted(instruments.items()), versions, judged.version)
        part_fingerprint = fingerprint(made_of, version)
        held = study.lake.manifest(SIGNALS, study.key, book)
        if held is None or not is_made_of(held, part_fingerprint):
            weights, notes_of_book = weighed(study, tradable(study, book, predicted_by(study, book)), tested(study))
            frame = weights.with_columns((pl.col("open_time") + study.dataset.interval.delta).alias("known_at"))
            if book == ENSEMBLE:
                _store_signals(study, frame)
            held = study.lake.write(
                SIGNALS, study.key, book, frame, fingerprint=part_fingerprint, metadata={"notes": list(notes_of_book)}
            )
            worked += 1
        table.append((book, held.rows, held.symbols))
        notes += [f"{book}: {note}" for note in held.metadata.get("notes", ())]
    drop_others(study.lake, [Table(SIGNALS, study.key)], books(study))
    facts = SignalFacts(
        strategy=chosen.name,
        neutralised_by=chosen.neutralise.by if chosen.neutralise else None,
        predictions_rejected=judged.rejected,
    )
    return stored(
        study.lake.manifests(SIGNALS, study.key),
        worked=worked > 0,
        code_version=code,
        facts=facts,
        columns=("book", "rows", "symbols"),
        table=tuple(table),
        notes=(*judged.sentences(), *notes),
    )


def _store_signals(study: Study, frame: pl.DataFrame) -> None:
    """The ensemble's signals to Postgres: that book is traded; the engines' own serve comparison and stay in the lake.

    What lies in the lake was safe in Postgres before, so that only what differs is written, and only what it has is withdrawn.
    """
    labels = {"dataset": study.dataset.key, "strategy": study.experiment.strategy.name, "engine": ENSEMBLE}
    given = frame.drop_nulls("weight").with_columns(pl.lit(value).alias(name) for name, value in labels.items())
    if study.lake.manifest(SIGNALS, study.key, ENSEMBLE) is not None:
        scan = study.lake.scan(SIGNALS, study.key, partitions=[ENSEMBLE]).select("symbol", "open_time", "weight")
        held = scan.drop_nulls("weight").collect().with_columns(pl.lit(value).alias(name) for name, value in labels.items())
        gone = held.join(given, on=("symbol", "open_time"), how="anti")
        study.workspace.call(withdraw_signals, study.workspace.database, gone)
        given = given.join(held, on=("symbol", "open_time", "weight"), how="anti")
    study.workspace.call(write_signals, study.workspace.database, given)
