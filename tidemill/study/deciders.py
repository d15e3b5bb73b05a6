"""The deciders of a study: for each fold of its walk-forward and each book the one that holds there; in time, a schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
import polars as pl

from tidemill.domain.experiment import NewsSpec, StrategySpec
from tidemill.features.api import feature_set
from tidemill.models.artifact import read_manifest
from tidemill.provenance import fingerprint, source_version
from tidemill.quality.validity import PastRange, widened
from tidemill.storage.deciders import StoredDecider, in_force, is_schedule_of, write_schedule
from tidemill.study.book import resolved, tested
from tidemill.study.model_index import Index, artifact_folder, models_home, read_index
from tidemill.study.registry import Kind
from tidemill.study.scoring import books, scored_rows
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, FEATURE_BOUNDS, LABELS, PREDICTIONS, REFUSALS, partition_of
from tidemill.trading.confidence import Knot, fit_confidence
from tidemill.trading.decider import Bound, Decider, Known, code_of, from_text, libraries_of, to_text
from tidemill.validation.splits import Fold


class Window(NamedTuple):
    """What was learned for a stretch of time, from what was known at `cut`. models: engine → id, in order.

    ensemble: id of the model that weighs them. bounds: `quality.validity.feature_bounds`. past: engine → range of what it said
    before.
    """

    models: Mapping[str, str]
    cut: datetime
    ensemble: str
    bounds: pl.DataFrame
    past: Mapping[str, PastRange | None]


class Term(NamedTuple):
    """A decider, and from when until before when it holds."""

    decider: Decider
    start: datetime
    end: datetime | None

    @classmethod
    def of(cls, row: StoredDecider) -> Term:
        """IntegrityError for one that is damaged."""
        return cls(from_text(row.content, row.id), row.valid_from, row.valid_to)


def known_to(study: Study) -> Known:
    return Known(study.registry.engines, study.registry.strategies, study.registry.features)


def keep_schedule(study: Study, experiment: str) -> int:
    """Make the deciders of every fold and book what is in force for an experiment, by its id; returns how many were written.

    What they are made of is fingerprinted first, so that a run with nothing to do makes none.
    """
    database, call, print_ = study.workspace.database, study.workspace.call, made_of(study)
    if call(is_schedule_of, database, experiment, print_):
        return 0
    made = [
        stored_decider(experiment, one, fold.test_start, fold.test_end)
        for fold in study.folds
        for one in deciders_of(study, fold)
    ]
    call(write_schedule, database, experiment, print_, made)
    return len(made)


def terms_of(study: Study, experiment: str, book: str) -> list[Term]:
    """What is in force for a book of an experiment, in order of time; IntegrityError for one that is damaged."""
    rows = study.workspace.call(in_force, study.workspace.database, experiment, book)
    return [Term.of(row) for row in rows if row.made_for == "run"]


def deciders_of(study: Study, fold: Fold) -> Iterator[Decider]:
    """Those of one fold, the ensemble's first; the study has run up to the judgement of its predictions."""
    window = window_of(study, fold)
    return (decider(study, book, window) for book in books(study))


def window_of(study: Study, fold: Fold) -> Window:
    """What a run stored of a fold."""
    part, keys = partition_of(fold), books(study)
    bounds = study.lake.scan(FEATURE_BOUNDS, study.key, partitions=[part]).collect()
    models = {book: _model(study, key, fold) for book, key in keys.items()}
    ensemble = models.pop(ENSEMBLE)
    return Window(models, fold.train_end, ensemble, bounds, _past(study, fold, models))


def decider(study: Study, book: str, window: Window) -> Decider:
    """All that decides for one book where a window holds."""
    own = window.models if book == ENSEMBLE else {book: window.models[book]}
    experiment, known, names = study.experiment, known_to(study), tuple(own)
    engines = [known.engines.find(name).info for name in own]
    return Decider(
        book=book,
        interval=str(study.dataset.interval),
        features=study.available.names,
        feature_fingerprint=study.available.fingerprint,
        models=dict(own),
        ensemble=window.ensemble if book == ENSEMBLE else "",
        weights=_weights(study, window) if book == ENSEMBLE else {},
        strategy=_stated(study, experiment.strategy),
        anchor=tested(study).start,
        calendars=_calendars(study),
        validation=experiment.validation,
        bounds=tuple(Bound(*row) for row in window.bounds.iter_rows()),
        past={name: window.past.get(name) for name in own},
        half_life=(experiment.news or NewsSpec(source="")).half_life,
        costs=experiment.costs,
        limits=experiment.limited,
        look_back=max(info.history for info in engines),
        code=code_of(names, experiment.strategy.name, known),
        libraries=libraries_of(names, known),
        modules=_modules(study, names),
        confidence=_confidence(study, book, window.cut),
    )


def successor(study: Study, held: Decider) -> Decider:
    """The same decider by the code, the libraries and the modules that are here."""
    known, names = known_to(study), tuple(held.models)
    return msgspec.structs.replace(
        held,
        feature_fingerprint=feature_set(*held.features, known=known.features).fingerprint,
        code=code_of(names, held.strategy.name, known),
        libraries=libraries_of(names, known),
        modules=_modules(study, names),
    )


def stored_decider(experiment: str, made: Decider, start: datetime, end: datetime | None = None) -> StoredDecider:
    """As a row, of an experiment by its id; it holds in [start, end), end None: until another is put in its place."""
    return StoredDecider(
        id=made.id, experiment=experiment, book=made.book, valid_from=start, valid_to=end, content=to_text(made)
    )


def made_of(study: Study) -> str:
    """Of everything that `deciders_of` all folds reads."""
    home, own = models_home(study.workspace), source_version(own=[__name__, "tidemill.trading.decider"])
    served = {book: _served(read_index(home, key)) for book, key in books(study).items()}
    versions = [study.part_versions(table, study.key) for table in (FEATURE_BOUNDS, REFUSALS)]
    versions += [study.part_versions(PREDICTIONS, key) for key in books(study).values()]
    versions.append(study.part_versions(LABELS, study.labels_key))
    ranges = {part: manifest.metadata["ranges"] for part, manifest in study.lake.manifests(REFUSALS, study.key).items()}
    experiment, engines, known = study.experiment, tuple(spec.name for spec in study.engines), known_to(study)
    decided = (
        _stated(study, experiment.strategy),
        experiment.validation,
        experiment.costs,
        experiment.limited,
        experiment.news,
    )
    code = (own, code_of(engines, experiment.strategy.name, known), libraries_of(engines, known), _modules(study, engines))
    return fingerprint(study.available.fingerprint, study.folds, served, versions, ranges, decided, _calendars(study), code)


def _served(index: Index | None) -> list[tuple[int, str]]:
    return [] if index is None else [(entry.fold, entry.model_id) for entry in index.folds]


def _model(study: Study, key: str, fold: Fold) -> str:
    index = read_index(models_home(study.workspace), key)
    return dict(_served(index))[fold.number]


def _past(study: Study, fold: Fold, models: Mapping[str, str]) -> dict[str, PastRange | None]:
    """What each engine said in the folds before, as they were judged."""
    earlier = {partition_of(one) for one in study.folds if one.number < fold.number}
    said: dict[str, list[PastRange | None]] = {name: [] for name in models}
    for part, manifest in sorted(study.lake.manifests(REFUSALS, study.key).items()):
        for name, known in manifest.metadata["ranges"].items() if part in earlier else ():
            said[name].append(PastRange(*known) if known else None)
    return {name: widened(known) for name, known in said.items()}


def _weights(study: Study, window: Window) -> dict[str, float]:
    params = read_manifest(artifact_folder(models_home(study.workspace), window.ensemble)).manifest.inputs.params
    weights = params["weights"] or [1.0 / len(window.models)] * len(window.models)
    return dict(zip(window.models, weights, strict=True))


def _confidence(study: Study, book: str, cut: datetime) -> tuple[Knot, ...]:
    """From the outcomes of the book's own predictions that were known at the cut, as if nothing had come after it.

    Empty where a study has predicted nothing yet.
    """
    if not study.lake.manifests(PREDICTIONS, books(study)[book]):
        return ()
    known = scored_rows(study, book).filter(pl.col("label_end_at") <= cut)
    predictions, labels = (known[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in ("prediction", "label"))
    return fit_confidence(predictions, labels)


def _stated(study: Study, spec: StrategySpec) -> StrategySpec:
    """With the sectors of its file, and every parameter as it is read."""
    found = resolved(spec)
    params = study.registry.strategies.find(spec.name).parse(spec.params)
    return msgspec.structs.replace(found, params=msgspec.to_builtins(params))


def _calendars(study: Study) -> tuple[str, ...]:
    """Of the instruments that have bars here: their slots are those of its books."""
    instruments = study.once("instruments", lambda: instruments_of(study.workspace, study.dataset.venue))
    chosen = study.experiment.dataset.symbols or tuple(instruments)
    return tuple(sorted({instruments[symbol].calendar for symbol in chosen if symbol in instruments}))


def _modules(study: Study, engines: tuple[str, ...]) -> dict[str, str]:
    """Name → hash of what a person's file declares by it."""
    strategy = (study.experiment.strategy.name,)
    kinds: dict[Kind, tuple[str, ...]] = {"features": study.available.names, "engines": engines, "strategies": strategy}
    found = ((name, study.registry.code(kind, name)) for kind, names in kinds.items() for name in names)
    return {name: code[0] for name, code in found if code}
