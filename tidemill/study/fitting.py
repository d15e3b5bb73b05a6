"""The one fit: an engine trained on the window of a fold, with its whole lineage."""

from __future__ import annotations

from tidemill.domain.experiment import EngineSpec
from tidemill.models.artifact import Artifact
from tidemill.models.base import Lineage
from tidemill.models.registry import engine as engine_named
from tidemill.storage.content import content_version
from tidemill.study.model_index import (
    artifact_folder,
    models_home,
)
from tidemill.study.study import Study
from tidemill.study.tables import FEATURES, LABELS
from tidemill.validation.splits import Fold, training_rows


def fit_fold(study: Study, spec: EngineSpec, fold: Fold) -> Artifact:
    """One engine trained on the window of `fold`, its label purged and embargoed; the artifact is stored."""
    engine, rows = engine_named(spec.name), training_rows(study.training_frame, fold)
    artifact = engine.fit(
        rows, features=study.available.names, params=spec.params, seed=study.experiment.seed, lineage=lineage_of(study, fold)
    )
    artifact.save(artifact_folder(models_home(study.workspace), artifact.model_id))
    return artifact


def lineage_of(study: Study, fold: Fold) -> Lineage:
    """What a model of `fold` says of its origin."""
    split = {"train_start": fold.train_start.isoformat(), "train_end": fold.train_end.isoformat()}
    return Lineage(
        feature_fingerprint=study.available.fingerprint,
        data_versions=study.once(("window", fold.number), lambda: _window_versions(study, fold)),
        label=study.experiment.label.name,
        horizon=study.experiment.label.horizon,
        split=split,
    )


def _window_versions(study: Study, fold: Fold) -> dict[str, str]:
    """Data version of every month inside a training window, and of what the window takes of its last month.

    The last month counts only as far as the window goes: otherwise a fold whose training ends in the running month would be
    trained again with every new bar.
    """
    last = f"{fold.train_end:%Y-%m}"
    versions = {
        f"{table}/{month}": manifest.data_version
        for table, key in ((FEATURES, study.features_key), (LABELS, study.labels_key))
        for month, manifest in sorted(study.lake.manifests(table, key).items())
        if f"{fold.train_start:%Y-%m}" <= month < last
    }
    tail = training_rows(study.training_month(last), fold)
    return versions | {f"{FEATURES}+{LABELS}/{last}": content_version(tail)}
