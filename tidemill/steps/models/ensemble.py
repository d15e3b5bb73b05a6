"""The ensemble of a study: one artifact for each fold, with the weights that were known before it, and its predictions."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import polars as pl

from tidemill.domain.errors import UnknownNameError
from tidemill.models.artifact import load
from tidemill.models.base import Lineage
from tidemill.models.ensemble import wide
from tidemill.models.registry import engine as engine_named
from tidemill.provenance import fingerprint, source_version
from tidemill.steps.models.weighing import Skill, coefficients, rounded, skill_weights
from tidemill.steps.predictions.engines import drop_old_folds, keep, prediction_frame, prediction_report
from tidemill.study.freshness import StepReport
from tidemill.study.model_index import (
    Index,
    TrainedFold,
    artifact_folder,
    index_of,
    models_home,
    read_index,
    spec_of,
    store_index,
)
from tidemill.study.scoring import scored_rows
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, LABELS, PREDICTIONS, STORED, partition_of
from tidemill.validation.splits import Fold

SKILL, EQUAL = "skill", "equal"


def train_ensemble(study: Study) -> StepReport:
    """One artifact for each fold: the weights of the engines, and the models whose predictions it combines."""
    code, home, key = source_version(__name__, "tidemill.models.ensemble"), models_home(study.workspace), study.ensemble_key
    members = {spec.name: index_of(study, spec) for spec in study.experiment.engines}
    index = read_index(home, key)
    known = {entry.fold: entry for entry in index.folds} if index else {}
    versions = _versions(study)
    entries = [_entry(study, fold, members, code, known.get(fold.number), versions) for fold in study.folds]
    inputs = fingerprint([entry.fingerprint for entry in entries])
    worked = index is None or index.inputs != inputs
    if worked:
        index = Index(engine=ENSEMBLE, dataset=study.dataset.key, inputs=inputs, folds=tuple(entries))
        store_index(study, key, index)
    return _report(study, entries, worked=worked, code=code)


class _Versions(NamedTuple):
    """Data versions of what weights come from, looked up once for all folds: fold → engine/fold, and month of labels."""

    predictions: dict[str, dict[str, str]]
    labels: dict[str, str]


def _versions(study: Study) -> _Versions:
    predictions: dict[str, dict[str, str]] = {}
    for spec in study.experiment.engines:
        for part, manifest in study.lake.manifests(PREDICTIONS, study.engine_key(spec)).items():
            predictions.setdefault(part, {})[f"{spec.name}/{part}"] = manifest.data_version
    months = study.lake.manifests(LABELS, study.labels_key)
    return _Versions(predictions, {month: manifest.data_version for month, manifest in months.items()})


def _entry(
    study: Study, fold: Fold, members: dict[str, Index], code: str, known: TrainedFold | None, versions: _Versions
) -> TrainedFold:
    """The ensemble of one fold: the known one when nothing that decides its weights has changed."""
    own = {name: index.folds[fold.number].model_id for name, index in members.items()}
    evidence = _evidence(study, fold, versions)
    seen = fingerprint(code, study.experiment.ensemble, own, evidence)
    home = models_home(study.workspace)
    if known is not None and known.fingerprint == seen and artifact_folder(home, known.model_id).is_dir():
        return msgspec.structs.replace(known, test_start=fold.test_start, test_end=fold.test_end)
    return TrainedFold(
        fold=fold.number, fingerprint=seen, model_id=_fit(study, fold, own, evidence), rows=0, start="", end="",
        test_start=fold.test_start, test_end=fold.test_end,
    )  # fmt: skip


def _evidence(study: Study, fold: Fold, versions: _Versions) -> dict[str, str]:
    """Versions of the predictions and labels from which the weights of `fold` come; none where they are equal."""
    if study.experiment.ensemble == EQUAL or fold.number == 0:
        return {}
    earlier = [versions.predictions.get(partition_of(before), {}) for before in study.folds[: fold.number]]
    tested, cut = f"{study.folds[0].test_start:%Y-%m}", f"{fold.train_end:%Y-%m}"
    seen = {month: version for month, version in versions.labels.items() if tested <= month <= cut}
    return {name: version for found in earlier for name, version in found.items()} | seen


def _fit(study: Study, fold: Fold, members: dict[str, str], evidence: dict[str, str]) -> str:
    names = tuple(members)
    params = (
        {}
        if study.experiment.ensemble == EQUAL
        else {"weights": rounded([one.weight for one in weights_of(study, fold).values()])}
    )
    lineage = Lineage(
        feature_fingerprint=fingerprint(members),
        data_versions=members | evidence,
        horizon=study.experiment.label.horizon,
        split={"weighed_until": fold.train_end.isoformat(), "test_start": fold.test_start.isoformat()},
    )
    engine = engine_named(ENSEMBLE)
    artifact = engine.fit(pl.DataFrame(), features=names, params=params, seed=study.experiment.seed, lineage=lineage)
    artifact.save(artifact_folder(models_home(study.workspace), artifact.model_id))
    return artifact.model_id


def weights_of(study: Study, fold: Fold) -> dict[str, Skill]:
    """Weight of each engine in the ensemble of `fold`, and the skill from which it comes."""
    if study.experiment.ensemble == EQUAL:
        equal = 1.0 / len(study.experiment.engines)
        return {spec.name: Skill(equal, None, 0.0) for spec in study.experiment.engines}
    for spec in study.experiment.engines:
        if not study.lake.manifests(PREDICTIONS, study.engine_key(spec)):
            raise UnknownNameError(
                "prediction", spec.name, hint="Materialize predictions/engines first: the weights need them."
            )
    names = [spec.name for spec in study.experiment.engines]
    known = {name: coefficients(scored_rows(study, name), fold.train_end) for name in names}
    return skill_weights(known, study.experiment.label.horizon)


def _report(study: Study, entries: list[TrainedFold], *, worked: bool, code: str) -> StepReport:
    names = tuple(spec.name for spec in study.experiment.engines)
    weights = [stored_weights(study, entry.model_id) for entry in entries]
    return StepReport(
        worked=worked,
        start=entries[0].test_start,
        end=entries[-1].test_end,
        data_version=fingerprint([entry.model_id for entry in entries]),
        code_version=code,
        facts={"engines": len(names), "weights": study.experiment.ensemble, **dict(zip(names, weights[-1], strict=True))},
        columns=("fold", "tested from", "model", *names),
        table=tuple(
            (entry.fold, f"{entry.test_start:%Y-%m-%d}", entry.model_id, *(round(weight, 4) for weight in row))
            for entry, row in zip(entries, weights, strict=True)
        ),
        notes=(_NOTES[study.experiment.ensemble],),
    )


_NOTES = {
    EQUAL: "Every engine has the same weight.",
    SKILL: "Weights: rank IC on earlier test windows, of labels that ended before the fold less the embargo, shrunk to equal.",
}


def stored_weights(study: Study, model_id: str) -> tuple[float, ...]:
    """Weights of the engines in one ensemble, in the order of its features."""
    artifact = load(artifact_folder(models_home(study.workspace), model_id))
    return tuple(float(weight) for weight in artifact.tensors["weights"])


def predict_ensemble(study: Study) -> StepReport:
    """The engines' predictions combined, fold by fold."""
    home = models_home(study.workspace)
    index = read_index(home, study.ensemble_key)
    if index is None:
        raise UnknownNameError("trained model", ENSEMBLE, hint="Materialize models/ensemble first.")
    names = tuple(spec.name for spec in study.experiment.engines)
    keys = {name: study.engine_key(spec_of(study, name)) for name in names}
    versions = {name: study.lake.manifests(PREDICTIONS, key) for name, key in keys.items()}
    have = study.lake.manifests(PREDICTIONS, study.ensemble_key)
    combined = 0
    for fold, entry in zip(study.folds, index.folds, strict=True):
        partition = partition_of(fold)
        print_ = fingerprint(
            STORED, entry.model_id, {name: manifests[partition].data_version for name, manifests in versions.items()}
        )
        if partition in have and have[partition].fingerprint == print_:
            continue
        columns = ("symbol", "open_time", "engine", "prediction")
        parts = [study.lake.scan(PREDICTIONS, key, partitions=[partition]).select(columns).collect() for key in keys.values()]
        artifact = load(artifact_folder(home, entry.model_id))
        scored = engine_named(ENSEMBLE).predict(artifact, wide(pl.concat(parts), names))
        keep(
            study, study.ensemble_key, partition, prediction_frame(scored, ENSEMBLE, fold.number, entry.model_id, study), print_
        )
        combined += 1
    drop_old_folds(study, study.ensemble_key, have)
    return prediction_report(study, [(ENSEMBLE, study.ensemble_key)], combined)
