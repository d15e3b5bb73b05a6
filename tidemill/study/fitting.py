"""The one fit: an engine trained on the window of a fold, with its whole lineage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import polars as pl

from tidemill.domain.errors import EngineError, RetryError
from tidemill.domain.experiment import EngineSpec
from tidemill.models.artifact import Artifact
from tidemill.models.base import Lineage
from tidemill.models.ensemble import wide
from tidemill.models.inference import predict_batch
from tidemill.models.registry import engine
from tidemill.provenance import fingerprint
from tidemill.storage.content import content_version
from tidemill.study.model_index import (
    artifact_folder,
    models_home,
)
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, FEATURES, LABELS
from tidemill.study.weighing import EQUAL, rounded, weights_of
from tidemill.validation.splits import Fold, rows_with_history, training_rows


def fit(study: Study, spec: EngineSpec, training: pl.DataFrame, lineage: Lineage) -> Artifact:
    """One engine trained on `training` (features, label, label_end_at), its labels purged; nothing is stored.

    EngineError when it fails.
    """
    chosen, available, seed = study.registry.engines.find(spec.name), study.available, study.experiment.seed
    with failing_as(spec.name):
        return chosen.fit(training, features=available.names, params=spec.params, seed=seed, lineage=lineage)


@contextmanager
def failing_as(engine: str) -> Iterator[None]:
    """Whatever an engine raises, as an EngineError that names it; what may succeed later is none of its failures."""
    try:
        yield
    except RetryError:
        raise
    except Exception as exc:  # its library, or a person's own code, may raise anything
        raise EngineError(engine, exc) from exc


def fit_fold(study: Study, spec: EngineSpec, fold: Fold) -> Artifact:
    """One engine trained on the window of `fold`, its label purged and embargoed; the artifact is stored."""
    artifact = fit(study, spec, training_rows(study.training_frame, fold), lineage_of(study, fold))
    artifact.save(artifact_folder(models_home(study.workspace), artifact.model_id))
    return artifact


def fit_ensemble(study: Study, fold: Fold, members: Mapping[str, str], evidence: Mapping[str, str]) -> Artifact:
    """The ensemble of a window, weighed as the experiment asks by what was known before it; the artifact is stored.

    members: engine → model id. evidence: versions of the predictions and labels that the weights come from.
    """
    weights = [] if study.experiment.ensemble == EQUAL else [one.weight for one in weights_of(study, fold).values()]
    lineage = Lineage(
        feature_fingerprint=fingerprint(members),
        data_versions={**members, **evidence},
        horizon=study.experiment.label.horizon,
        split={"weighed_until": fold.train_end.isoformat(), "test_start": fold.test_start.isoformat()},
    )
    params, seed = {"weights": rounded(weights)} if weights else {}, study.experiment.seed
    artifact = engine(ENSEMBLE).fit(pl.DataFrame(), features=tuple(members), params=params, seed=seed, lineage=lineage)
    artifact.save(artifact_folder(models_home(study.workspace), artifact.model_id))
    return artifact


def scores(study: Study, artifact: Artifact, start: datetime, end: datetime) -> pl.DataFrame:
    """symbol, open_time, prediction of a model on the bars in [start, end), after as much history as its engine remembers.

    EngineError when it fails.
    """
    name = artifact.inputs.engine
    history = study.registry.engines.find(name).info.history
    known = study.features_until(end, start, history).filter(pl.col("open_time") < end)
    rows = rows_with_history(known, start, history)
    with failing_as(name):
        return predict_batch(artifact, rows, start=start, known=study.registry.engines)


def combined(ensemble: Artifact, own: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """symbol, open_time, prediction of an ensemble from those of its engines."""
    told = [frame.select("symbol", "open_time", "prediction", pl.lit(name).alias("engine")) for name, frame in own.items()]
    return engine(ENSEMBLE).predict(ensemble, wide(pl.concat(told), tuple(own)))


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
