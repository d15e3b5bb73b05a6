"""The ensemble of a study: one artifact for each fold, with the weights that were known before it, and its predictions."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tidemill.domain.errors import UnknownNameError
from tidemill.models.artifact import load
from tidemill.provenance import fingerprint
from tidemill.steps.predictions.engines import (
    PredictionFacts,
    drop_old_folds,
    keep,
    prediction_frame,
    prediction_report,
)
from tidemill.study import code as code_of
from tidemill.study.fitting import combined, fit_ensemble
from tidemill.study.freshness import StepReport, is_made_of
from tidemill.study.model_index import (
    Index,
    TrainedFold,
    artifact_folder,
    index_of,
    is_stored,
    models_home,
    read_index,
    spec_of,
    store_index,
    stored_weights,
    trained_report,
)
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, LABELS, PREDICTIONS, STORED, partition_of
from tidemill.study.weighing import EQUAL, SKILL
from tidemill.validation.splits import Fold


class EnsembleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """weighting: equal, or by skill. newest_weights: engine → weight in the last fold."""

    engines: int
    weighting: str
    newest_weights: dict[str, float]


def train_ensemble(study: Study) -> StepReport[EnsembleFacts]:
    """One artifact for each fold: the weights of the engines, and the models whose predictions it combines."""
    code, home, key = code_of.ensemble(), models_home(study.workspace), study.ensemble_key
    members = {spec.name: index_of(study, spec) for spec in study.engines}
    index = read_index(home, key)
    known = {entry.fold: entry for entry in index.folds} if index else {}
    versions = versions_of(study)
    entries = [_entry(study, fold, members, code, known.get(fold.number), versions) for fold in study.folds]
    inputs = fingerprint([entry.fingerprint for entry in entries])
    worked = index is None or index.inputs != inputs
    if index is None or worked:
        index = Index(engine=ENSEMBLE, dataset=study.dataset.key, inputs=inputs, folds=tuple(entries))
        store_index(study, key, index)
    return _report(study, index, worked=worked, code=code)


class Versions(NamedTuple):
    """Data versions of what weights come from, looked up once for all folds: fold → engine/fold, and month of labels."""

    predictions: dict[str, dict[str, str]]
    labels: dict[str, str]


def versions_of(study: Study) -> Versions:
    predictions: dict[str, dict[str, str]] = {}
    for spec in study.engines:
        for part, version in study.part_versions(PREDICTIONS, study.engine_key(spec)).items():
            predictions.setdefault(part, {})[f"{spec.name}/{part}"] = version
    return Versions(predictions, study.part_versions(LABELS, study.labels_key))


def _entry(
    study: Study, fold: Fold, members: dict[str, Index], code: str, known: TrainedFold | None, versions: Versions
) -> TrainedFold:
    """The ensemble of one fold: the known one when nothing that decides its weights has changed."""
    own = {name: index.folds[fold.number].model_id for name, index in members.items()}
    evidence = evidence_for(study, fold, versions)
    seen = fingerprint(code, study.experiment.ensemble, own, evidence)
    home = models_home(study.workspace)
    if known is not None and known.fingerprint == seen and is_stored(home, known.model_id):
        return msgspec.structs.replace(known, test_start=fold.test_start, test_end=fold.test_end)
    made = fit_ensemble(study, fold, own, evidence)
    return TrainedFold(
        fold=fold.number, fingerprint=seen, model_id=made.model_id, rows=0, start="", end="",
        test_start=fold.test_start, test_end=fold.test_end,
    )  # fmt: skip


def evidence_for(study: Study, fold: Fold, versions: Versions | None = None) -> dict[str, str]:
    """Versions of the predictions and labels from which the weights of `fold` come; none where they are equal."""
    earlier = [before for before in study.folds if before.test_start < fold.test_start]
    if study.experiment.ensemble == EQUAL or not earlier:
        return {}
    held = versions or versions_of(study)
    predicted = [held.predictions.get(partition_of(before), {}) for before in earlier]
    tested, cut = f"{study.folds[0].test_start:%Y-%m}", f"{fold.train_end:%Y-%m}"
    seen = {month: version for month, version in held.labels.items() if tested <= month <= cut}
    return {name: version for found in predicted for name, version in found.items()} | seen


def _report(study: Study, index: Index, *, worked: bool, code: str) -> StepReport[EnsembleFacts]:
    names, weighting = tuple(spec.name for spec in study.engines), study.experiment.ensemble
    weights = [stored_weights(study, entry.model_id) for entry in index.folds]
    rounded = ({name: round(weight, 4) for name, weight in own.items()} for own in weights)
    return trained_report(
        index,
        worked=worked,
        code_version=code,
        facts=EnsembleFacts(engines=len(names), weighting=weighting, newest_weights=weights[-1]),
        columns=("fold", "tested_from", "model_id", "weights"),
        table=tuple(
            (entry.fold, f"{entry.test_start:%Y-%m-%d}", entry.model_id, own)
            for entry, own in zip(index.folds, rounded, strict=True)
        ),
        notes=(_NOTES[weighting],),
    )


_NOTES = {
    EQUAL: "Every engine has the same weight.",
    SKILL: "Weights: rank IC on earlier test windows, of labels that ended before the fold less the embargo, shrunk to equal.",
}


def predict_ensemble(study: Study) -> StepReport[PredictionFacts]:
    """The engines' predictions combined, fold by fold."""
    home = models_home(study.workspace)
    index = read_index(home, study.ensemble_key)
    if index is None:
        raise UnknownNameError("trained model", ENSEMBLE, hint="Materialize models/ensemble first.")
    names = tuple(spec.name for spec in study.engines)
    keys = {name: study.engine_key(spec_of(study, name)) for name in names}
    versions = {name: study.part_versions(PREDICTIONS, key) for name, key in keys.items()}
    have = study.lake.manifests(PREDICTIONS, study.ensemble_key)
    made = 0
    for fold, entry in zip(study.folds, index.folds, strict=True):
        partition = partition_of(fold)
        part_fingerprint = fingerprint(STORED, entry.model_id, {name: parts[partition] for name, parts in versions.items()})
        if is_made_of(have.get(partition), part_fingerprint):
            continue
        own = {name: study.lake.scan(PREDICTIONS, key, partitions=[partition]).collect() for name, key in keys.items()}
        scored = combined(load(artifact_folder(home, entry.model_id)), own)
        keep(
            study,
            study.ensemble_key,
            partition,
            prediction_frame(scored, ENSEMBLE, fold.number, entry.model_id, study),
            part_fingerprint,
        )
        made += 1
    drop_old_folds(study, study.ensemble_key)
    return prediction_report(study, {ENSEMBLE: study.ensemble_key}, made)
