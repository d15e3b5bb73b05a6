"""Signals from predictions: one book for each engine, one for the ensemble, one for the benchmark."""

from __future__ import annotations

import msgspec

from tidemill.experiments.tracked import id_of
from tidemill.provenance import fingerprint
from tidemill.steps.predictions.validity import validate_predictions
from tidemill.steps.trading.serving import ASKED, SERVED, serve_signals
from tidemill.storage.lake import Manifest
from tidemill.study import code as code_of
from tidemill.study.book import bars_versions, resolved, sees_bars, tested, weighed
from tidemill.study.deciders import keep_schedule, made_of, terms_of
from tidemill.study.freshness import StepReport, Table, drop_others, is_made_of, stored
from tidemill.study.rejections import tradable
from tidemill.study.scoring import books, predicted_by, prediction_versions
from tidemill.study.signalling import signal_rows, versions_of
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import SIGNALS


class SignalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """neutralised_by: sector or beta; None for neither."""

    strategy: str
    neutralised_by: str | None
    predictions_rejected: int


def make_signals(study: Study) -> StepReport[SignalFacts]:
    """Target weights of every book from its predictions, by the experiment's strategy, and the deciders that ask for them."""
    instruments = instruments_of(study.workspace, study.dataset.venue)
    chosen, known = resolved(study.experiment.strategy), study.registry.strategies
    code = fingerprint(known.code_version(chosen.name), code_of.signals())[:16]
    versions = bars_versions(study) if sees_bars(chosen, known) else None
    judged, experiment = validate_predictions(study), id_of(study.experiment)
    keep_schedule(study, experiment)
    given, worked, table, notes = (
        (code, chosen, sorted(instruments.items()), versions, judged.version, made_of(study)),
        0,
        [],
        [],
    )
    for book, version in prediction_versions(study).items():
        part_fingerprint = fingerprint(given, version)
        held = study.lake.manifest(SIGNALS, study.key, book)
        if held is None or not is_made_of(held, part_fingerprint):
            held = _make_book(study, experiment, book, part_fingerprint, held)
            worked += 1
        table.append((book, held.rows, held.symbols))
        notes += [f"{book}: {note}" for note in held.metadata.get("notes", ())]
    drop_others(study.lake, [Table(SIGNALS, study.key)], books(study))
    serve_signals(study, experiment)
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


def _make_book(study: Study, experiment: str, book: str, part_fingerprint: str, held: Manifest | None) -> Manifest:
    weights, told = weighed(study, tradable(study, book, predicted_by(study, book)), tested(study))
    frame = signal_rows(study, book, weights, terms_of(study, experiment, book))
    facts = {"notes": list(told), ASKED: versions_of(frame), SERVED: held.metadata.get(SERVED, {}) if held else {}}
    return study.lake.write(SIGNALS, study.key, book, frame, fingerprint=part_fingerprint, metadata=facts)
