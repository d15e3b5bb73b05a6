"""Training on every fold; what was made from the same inputs is not made again.

Two levels decide. An engine's index names the inputs of its last success as a whole: equal means that nothing is even
looked at. Otherwise each fold compares its own: the versions of the months inside its window, and of the part of the
month in which the window ends.
"""

from __future__ import annotations

import msgspec

from tidemill.domain.errors import EngineError
from tidemill.domain.experiment import EngineSpec
from tidemill.models.registry import code_version
from tidemill.provenance import fingerprint, library_version
from tidemill.study.failures import forget, note
from tidemill.study.fitting import fit_fold, lineage_of
from tidemill.study.freshness import StepReport, unused
from tidemill.study.model_index import (
    Index,
    TrainedFold,
    all_there,
    is_stored,
    models_home,
    month_versions,
    read_index,
    silent_notes,
    spec_of,
    store_index,
    touched,
    trained_report,
)
from tidemill.study.study import Study
from tidemill.study.tables import FEATURES, LABELS
from tidemill.validation.splits import Fold, describe, embargo_length

_LIBRARIES = ("numpy", "polars", "lightgbm", "torch", "numba", "safetensors")


class TrainingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """embargo: in bar times."""

    folds: int
    folds_trained: int
    embargo: int
    seed: int


def train(study: Study, name: str) -> StepReport[TrainingFacts]:
    """Train one engine on every fold that is new or whose inputs changed. EngineError when it fails."""
    spec, engine, home = spec_of(study, name), study.registry.engines.find(name), models_home(study.workspace)
    key = study.engine_key(spec)
    code = (code_version(engine), *map(library_version, _LIBRARIES))
    inputs = fingerprint(code, spec, study.experiment.seed, study.splits, study.features_version, study.labels_version)
    index = read_index(home, key)
    if index is not None and index.inputs == inputs and all_there(home, index):
        return _training_report(study, index, trained=0, code=code[0])
    known = {entry.fold: entry for entry in index.folds} if index else {}
    months, entries = month_versions(study, FEATURES, LABELS), []
    for fold in study.folds:
        seen = fingerprint(code, spec, study.experiment.seed, touched(months, fold.train_start, fold.train_end))
        entry = known.get(fold.number)
        if entry is None or entry.seen != seen or not is_stored(home, entry.model_id):
            entry = _trained(study, spec, fold, entry, code)
        entries.append(msgspec.structs.replace(entry, seen=seen, test_start=fold.test_start, test_end=fold.test_end))
    trained = sum(entry.fingerprint != getattr(known.get(entry.fold), "fingerprint", None) for entry in entries)
    made = Index(engine=name, dataset=study.dataset.key, inputs=inputs, folds=tuple(entries))
    store_index(study, key, made)
    return _training_report(study, made, trained=trained, code=code[0])


def train_among(study: Study, name: str) -> StepReport[TrainingFacts | None]:
    """`train`, of one engine among others: one that fails is noted, and the others go on without it until it works again.

    One that the experiment does not name is not trained.
    """
    code = code_version(study.registry.engines.find(name))
    if all(spec.name != name for spec in study.experiment.engines):
        return unused(code, f"This experiment does not use the engine {name}.")
    try:
        report = train(study, name)
    except EngineError as exc:
        note(study, exc)
        return StepReport(worked=True, facts=None, data_version="failed", code_version=code, notes=(str(exc),))
    forget(study, name)
    return report


def _trained(study: Study, spec: EngineSpec, fold: Fold, entry: TrainedFold | None, code: tuple[str, ...]) -> TrainedFold:
    """The entry of a fold: the known one when its window holds what it held, else that of a model trained now."""
    lineage = lineage_of(study, fold)
    part_fingerprint = fingerprint(code, spec, study.experiment.seed, lineage)
    if entry is not None and entry.fingerprint == part_fingerprint and is_stored(models_home(study.workspace), entry.model_id):
        return entry
    artifact = fit_fold(study, spec, fold)
    made = artifact.inputs
    return TrainedFold(
        fold=fold.number,
        fingerprint=part_fingerprint,
        model_id=artifact.model_id,
        rows=made.rows,
        start=made.start,
        end=made.end,
        test_start=fold.test_start,
        test_end=fold.test_end,
    )


def _training_report(study: Study, index: Index, *, trained: int, code: str) -> StepReport[TrainingFacts]:
    rows = tuple(
        (entry.fold, entry.model_id, f"{entry.start:.10}", f"{entry.end:.10}", entry.rows, f"{entry.test_start:%Y-%m-%d}",
         f"{entry.test_end:%Y-%m-%d}")
        for entry in index.folds
    )  # fmt: skip
    embargo = embargo_length(study.splits, horizon=study.experiment.label.horizon, lookback=study.features.lookback)
    return trained_report(
        index,
        worked=trained > 0,
        code_version=code,
        inputs={FEATURES: study.features_version, LABELS: study.labels_version},
        facts=TrainingFacts(folds=len(index.folds), folds_trained=trained, embargo=embargo, seed=study.experiment.seed),
        columns=("fold", "model_id", "trained_from", "trained_to", "rows", "tested_from", "tested_to"),
        table=rows,
        notes=(describe(study.folds, embargo), *silent_notes(index)),
    )
