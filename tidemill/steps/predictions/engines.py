"""Predicting out of sample: each fold's model on its own test window; what was made from the same inputs is not made again."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import polars as pl

from tidemill.domain.errors import EngineError, StopError
from tidemill.domain.experiment import EngineSpec
from tidemill.domain.months import month_start
from tidemill.models.artifact import load
from tidemill.models.registry import code_version
from tidemill.provenance import fingerprint, source_version
from tidemill.storage.cache_keys import cache_key
from tidemill.storage.content import content_version
from tidemill.storage.results import write_predictions
from tidemill.study.failures import note
from tidemill.study.fitting import scores
from tidemill.study.freshness import StepReport, Table, drop_others, is_made_of, stored
from tidemill.study.model_index import (
    artifact_folder,
    index_of,
    models_home,
    month_versions,
    spec_of,
    touched,
)
from tidemill.study.study import Study
from tidemill.study.tables import FEATURES, PREDICTIONS, STORED, fold_of, partition_of
from tidemill.validation.splits import Fold


def predict(study: Study) -> StepReport[PredictionFacts]:
    """Out-of-sample predictions of every engine: each fold's model on its own test window, and nothing else.

    An engine that fails here is noted like one that failed in training, and the others go on. StopError when none is left.
    """
    made = {}
    for spec in study.engines:
        try:
            made[spec.name] = _predict_engine(study, spec)
        except EngineError as exc:
            note(study, exc)
    if not made:
        raise StopError(f"Every engine failed. {' '.join(dict.fromkeys(study.failed.values()))}")
    return prediction_report(study, {name: study.engine_key(spec_of(study, name)) for name in made}, sum(made.values()))


def _predict_engine(study: Study, spec: EngineSpec) -> int:
    """Score the folds whose model or features changed; returns how many."""
    engine, key = study.registry.engines.find(spec.name), study.engine_key(spec)
    index = index_of(study, spec)
    have = study.lake.manifests(PREDICTIONS, key)
    made, months = 0, month_versions(study, FEATURES)
    code = fingerprint(code_version(engine), STORED)
    for entry, fold in zip(index.folds, study.folds, strict=True):
        partition = partition_of(fold)
        held = have.get(partition)
        seen = fingerprint(entry.model_id, touched(months, None, fold.test_end), fold, code)
        if held is not None and held.metadata.get("seen") == seen:
            continue
        history = study.once(("scored", fold.number), lambda fold=fold: _scored_versions(study, fold))  # type: ignore[misc]
        part_fingerprint = fingerprint(entry.model_id, history, fold, code)
        if held is not None and is_made_of(held, part_fingerprint):
            study.lake.annotate(held, {"seen": seen})  # what came later in the month is none of this fold's
            continue
        artifact = load(
            artifact_folder(models_home(study.workspace), entry.model_id), feature_fingerprint=study.available.fingerprint
        )
        scored = scores(study, artifact, fold.test_start, fold.test_end)
        keep(
            study,
            key,
            partition,
            prediction_frame(scored, spec.name, fold.number, entry.model_id, study),
            part_fingerprint,
            seen,
        )
        made += 1
    drop_old_folds(study, key)
    return made


def _scored_versions(study: Study, fold: Fold) -> dict[str, str]:
    """Versions of the feature months before the test window ends, and of what the window takes of its last month.

    All months from the first: a sequence engine remembers what came before.
    """
    last = f"{fold.test_end:%Y-%m}"
    manifests = study.lake.manifests(FEATURES, study.features_key)
    versions = {month: manifest.data_version for month, manifest in manifests.items() if month < last}
    inside = pl.col("open_time").is_between(month_start(last), fold.test_end, closed="left")
    return versions | {last: content_version(study.features_of_month(last).filter(inside))}


def prediction_frame(scored: pl.DataFrame, engine: str, fold: int, model_id: str, study: Study) -> pl.DataFrame:
    """Scores as they are stored: with engine, fold, model and the time at which they were known."""
    return scored.select(
        "symbol",
        "open_time",
        pl.lit(engine).alias("engine"),
        "prediction",
        pl.lit(fold, pl.Int32).alias("fold"),
        pl.lit(model_id).alias("model_id"),
        (pl.col("open_time") + study.dataset.interval.delta).alias("known_at"),
    )


def keep(study: Study, key: str, partition: str, frame: pl.DataFrame, part_fingerprint: str, seen: str = "") -> None:
    """Predictions of a fold to Postgres and, when they are safe there, to the lake, whose manifest says that it is done.

    seen: fingerprint of the whole months from which they came; while it is equal nothing is read to see that they hold.
    """
    _store(study, key, partition, frame)
    study.lake.write(PREDICTIONS, key, partition, frame, fingerprint=part_fingerprint, metadata={"seen": seen})


def _store(study: Study, key: str, partition: str, frame: pl.DataFrame) -> None:
    """Postgres says of this fold what `frame` says and nothing else; nobody on this host is given what it said before."""
    labels = {"dataset": study.dataset.key, "book": key}
    known = frame.filter(pl.col("prediction").is_not_null())
    rows = known.with_columns(pl.lit(text).alias(name) for name, text in labels.items())
    study.workspace.call(write_predictions, study.workspace.database, key, fold_of(partition), rows)
    told = frame.select("symbol", "engine")
    if study.lake.manifest(PREDICTIONS, key, partition) is not None:
        before = study.lake.scan(PREDICTIONS, key, partitions=[partition]).select("symbol", "engine")
        told = pl.concat([told, before.collect()])
    for (engine,), own in told.unique().group_by("engine"):
        study.workspace.cache.invalidate(*(cache_key(symbol, str(engine)) for symbol in own["symbol"]))


def drop_old_folds(study: Study, key: str) -> None:
    """Predictions of folds that are no more go from Postgres and then from the lake."""
    wanted = {partition_of(fold) for fold in study.folds}
    for gone in study.lake.manifests(PREDICTIONS, key).keys() - wanted:
        _store(study, key, gone, study.lake.scan(PREDICTIONS, key, partitions=[gone]).collect().clear())
    drop_others(study.lake, [Table(PREDICTIONS, key)], wanted)


class PredictionFacts(msgspec.Struct, frozen=True, kw_only=True):
    folds_scored: int


def prediction_report(study: Study, keys: Mapping[str, str], worked: int) -> StepReport[PredictionFacts]:
    """keys: engine → lake key of its predictions."""
    found = {name: study.lake.manifests(PREDICTIONS, key) for name, key in keys.items()}
    return stored(
        {f"{name}/{part}": manifest for name, manifests in found.items() for part, manifest in manifests.items()},
        worked=worked > 0,
        code_version=source_version("tidemill.models.registry"),
        facts=PredictionFacts(folds_scored=worked),
        columns=("engine", "folds", "rows"),
        table=tuple((name, len(parts), sum(manifest.rows for manifest in parts.values())) for name, parts in found.items()),
        notes=("Every prediction is out of sample: its model was trained on bars before its test window, less the embargo.",),
    )
