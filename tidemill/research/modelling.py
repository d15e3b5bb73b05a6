"""Training on every fold and predicting out of sample; what was made from the same inputs is not made again.

Two levels decide. An engine's index names the inputs of its last success as a whole: equal means that nothing is even
looked at. Otherwise each fold compares its own: the versions of the months inside its window, and of the part of the
month in which the window ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.errors import UnknownNameError
from tidemill.domain.experiment import EngineSpec
from tidemill.domain.provenance import fingerprint, library_version, source_version
from tidemill.models.artifact import MANIFEST_FILE, Artifact, load
from tidemill.models.base import Engine, Lineage
from tidemill.models.registry import engine as engine_named
from tidemill.research.ingest import month_start
from tidemill.research.recent import forget_predictions
from tidemill.research.study import StepReport, Study
from tidemill.research.technical import LABELS, TABLE
from tidemill.research.workspace import Workspace
from tidemill.storage.content import content_version
from tidemill.storage.lake import Manifest
from tidemill.storage.results import write_models, write_predictions
from tidemill.validation.splits import Fold, describe, embargo_length, scoring_rows, training_rows

PREDICTIONS = "predictions"
ENSEMBLE = "ensemble"
_LIBRARIES = ("numpy", "polars", "lightgbm", "torch", "numba", "safetensors")


class TrainedFold(msgspec.Struct, frozen=True, kw_only=True):
    """Which artifact serves a fold, and the fingerprint of what it was made of."""

    fold: int
    fingerprint: str
    model_id: str
    rows: int
    start: str
    end: str
    test_start: datetime
    test_end: datetime


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """All folds of one engine on one dataset; `inputs` is the fingerprint of everything at the last success."""

    engine: str
    dataset: str
    inputs: str
    folds: tuple[TrainedFold, ...]


def spec_of(study: Study, name: str) -> EngineSpec:
    """The experiment's own entry for an engine; UnknownNameError when it has none."""
    for spec in study.experiment.engines:
        if spec.name == name:
            return spec
    raise UnknownNameError("engine in this experiment", name, (spec.name for spec in study.experiment.engines))


def models_home(workspace: Workspace) -> Path:
    return workspace.settings.home / "models"


def _index_path(home: Path, engine_key: str) -> Path:
    return home / "index" / f"{engine_key}.json"


def artifact_folder(home: Path, model_id: str) -> Path:
    return home / "artifacts" / model_id


def read_index(home: Path, engine_key: str) -> Index | None:
    path = _index_path(home, engine_key)
    return msgspec.json.decode(path.read_bytes(), type=Index) if path.is_file() else None


def _write_index(home: Path, engine_key: str, index: Index) -> None:
    path = _index_path(home, engine_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=1))
    temporary.replace(path)


def train(study: Study, name: str) -> StepReport:
    """Train one engine on every fold that is new or whose inputs changed."""
    spec, engine, home = spec_of(study, name), engine_named(name), models_home(study.workspace)
    key = study.engine_key(spec)
    code = (source_version(type(engine).__module__), *map(library_version, _LIBRARIES))
    inputs = fingerprint(code, spec, study.experiment.seed, study.splits, study.features_version, study.labels_version)
    index = read_index(home, key)
    if index is not None and index.inputs == inputs:
        return _training_report(study, index, trained=0, code=code[0])
    known = {entry.fold: entry for entry in index.folds} if index else {}
    entries = []
    for fold in study.folds:
        lineage = _lineage(study, fold)
        print_ = fingerprint(code, spec, study.experiment.seed, lineage)
        entry = known.get(fold.number)
        if entry is None or entry.fingerprint != print_ or not artifact_folder(home, entry.model_id).is_dir():
            entry = _train_fold(study, spec, engine, fold, lineage, print_)
        entries.append(msgspec.structs.replace(entry, test_start=fold.test_start, test_end=fold.test_end))
    trained = sum(entry.fingerprint != getattr(known.get(entry.fold), "fingerprint", None) for entry in entries)
    made = Index(engine=name, dataset=study.dataset.key, inputs=inputs, folds=tuple(entries))
    study.workspace.call(write_models, study.workspace.database, _model_rows(study, made))
    _write_index(home, key, made)
    return _training_report(study, made, trained=trained, code=code[0])


def _train_fold(study: Study, spec: EngineSpec, engine: Engine, fold: Fold, lineage: Lineage, print_: str) -> TrainedFold:
    rows = training_rows(study.training_frame, fold)
    artifact = engine.fit(rows, features=study.features.names, params=spec.params, seed=study.experiment.seed, lineage=lineage)
    artifact.save(artifact_folder(models_home(study.workspace), artifact.model_id))
    made = artifact.inputs
    return TrainedFold(
        fold=fold.number,
        fingerprint=print_,
        model_id=artifact.model_id,
        rows=made.rows,
        start=made.start,
        end=made.end,
        test_start=fold.test_start,
        test_end=fold.test_end,
    )


def _model_rows(study: Study, index: Index) -> pl.DataFrame:
    home = models_home(study.workspace)
    rows = []
    for entry in index.folds:
        folder = artifact_folder(home, entry.model_id)
        rows.append(
            {
                "model_id": entry.model_id,
                "dataset": index.dataset,
                "engine": index.engine,
                "fold": entry.fold,
                "path": str(folder),
                "manifest": (folder / MANIFEST_FILE).read_text(encoding="utf-8"),
                "metrics": "{}",
            }
        )
    return pl.DataFrame(rows, schema_overrides={"fold": pl.Int32}).unique("model_id", keep="first", maintain_order=True)


def _lineage(study: Study, fold: Fold) -> Lineage:
    split = {"train_start": fold.train_start.isoformat(), "train_end": fold.train_end.isoformat()}
    return Lineage(
        feature_fingerprint=study.features.fingerprint,
        data_versions=study.once(("window", fold.number), lambda: _window_versions(study, fold)),
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
        for table, key in ((TABLE, study.features_key), (LABELS, study.labels_key))
        for month, manifest in sorted(study.lake.manifests(table, key).items())
        if f"{fold.train_start:%Y-%m}" <= month < last
    }
    tail = training_rows(study.training_month(last), fold)
    return versions | {f"{TABLE}+{LABELS}/{last}": content_version(tail)}


def _training_report(study: Study, index: Index, *, trained: int, code: str) -> StepReport:
    rows = tuple(
        (entry.fold, entry.model_id, f"{entry.start:.10}", f"{entry.end:.10}", entry.rows, f"{entry.test_start:%Y-%m-%d}",
         f"{entry.test_end:%Y-%m-%d}")
        for entry in index.folds
    )  # fmt: skip
    embargo = embargo_length(study.splits, horizon=study.experiment.label.horizon, lookback=study.features.lookback)
    return StepReport(
        worked=trained > 0,
        rows=sum(entry.rows for entry in index.folds),
        start=min(entry.test_start for entry in index.folds),
        end=max(entry.test_end for entry in index.folds),
        data_version=fingerprint([entry.model_id for entry in index.folds]),
        code_version=code,
        inputs={TABLE: study.features_version, LABELS: study.labels_version},
        facts={
            "folds": len(index.folds),
            "folds trained": trained,
            "embargo in bar times": embargo,
            "seed": study.experiment.seed,
        },
        columns=("fold", "model", "trained from", "to", "rows", "tested from", "to"),
        table=rows,
        notes=(describe(study.folds, embargo),),
    )


def predict(study: Study) -> StepReport:
    """Out-of-sample predictions of every engine: each fold's model on its own test window, and nothing else."""
    made = {spec.name: _predict_engine(study, spec) for spec in study.experiment.engines}
    return _prediction_report(study, [(name, study.engine_key(spec_of(study, name))) for name in made], sum(made.values()))


def _predict_engine(study: Study, spec: EngineSpec) -> int:
    """Score the folds whose model or features changed; returns how many."""
    engine, key = engine_named(spec.name), study.engine_key(spec)
    index = _index_of(study, spec)
    have = study.lake.manifests(PREDICTIONS, key)
    stamp = models_home(study.workspace) / "index" / f"{key}.scored"
    whole = fingerprint(source_version(type(engine).__module__), index, study.features_version)
    if len(have) == len(index.folds) and stamp.is_file() and stamp.read_text(encoding="utf-8") == whole:
        return 0
    scored = 0
    for entry, fold in zip(index.folds, study.folds, strict=True):
        partition = f"fold-{fold.number:03d}"
        history = study.once(("scored", fold.number), lambda fold=fold: _scored_versions(study, fold))  # type: ignore[misc]
        print_ = fingerprint(entry.model_id, history, fold, source_version(type(engine).__module__))
        if partition in have and have[partition].fingerprint == print_:
            continue
        artifact = load(
            artifact_folder(models_home(study.workspace), entry.model_id), feature_fingerprint=study.features.fingerprint
        )
        _keep(study, key, partition, _scores(study, engine, artifact, fold, entry.model_id), print_)
        scored += 1
    _drop_old_folds(study, key, have)
    stamp.write_text(whole, encoding="utf-8")
    return scored


def _scored_versions(study: Study, fold: Fold) -> dict[str, str]:
    """Versions of the feature months before the test window ends, and of what the window takes of its last month.

    All months from the first: a sequence engine remembers what came before.
    """
    last = f"{fold.test_end:%Y-%m}"
    manifests = study.lake.manifests(TABLE, study.features_key)
    versions = {month: manifest.data_version for month, manifest in manifests.items() if month < last}
    inside = pl.col("open_time").is_between(month_start(last), fold.test_end, closed="left")
    return versions | {last: content_version(study.features_of_month(last).filter(inside))}


def _scores(study: Study, engine: Engine, artifact: Artifact, fold: Fold, model_id: str) -> pl.DataFrame:
    rows = scoring_rows(study.feature_frame, fold, history=engine.info.history)
    scored = engine.predict(artifact, rows, start=fold.test_start)
    return _prediction_frame(scored, engine.info.name, fold.number, model_id, study)


def _prediction_frame(scored: pl.DataFrame, engine: str, fold: int, model_id: str, study: Study) -> pl.DataFrame:
    return scored.select(
        "symbol",
        "open_time",
        pl.lit(engine).alias("engine"),
        "prediction",
        pl.lit(fold, pl.Int32).alias("fold"),
        pl.lit(model_id).alias("model_id"),
        (pl.col("open_time") + study.dataset.interval.delta).alias("known_at"),
    )


def train_ensemble(study: Study) -> StepReport:
    """The ensemble's artifact: equal weights over the engines; it names the models whose predictions it combines."""
    names = tuple(spec.name for spec in study.experiment.engines)
    indexes = {name: _index_of(study, spec_of(study, name)) for name in names}
    members = {name: [entry.model_id for entry in index.folds] for name, index in indexes.items()}
    inputs = fingerprint(source_version("tidemill.models.ensemble"), members)
    home, key = models_home(study.workspace), study.ensemble_key
    index = read_index(home, key)
    worked = index is None or index.inputs != inputs
    if index is None or worked:
        engine = engine_named(ENSEMBLE)
        lineage = Lineage(
            feature_fingerprint=fingerprint(members),
            data_versions={name: fingerprint(ids) for name, ids in members.items()},
            horizon=study.experiment.label.horizon,
        )
        artifact = engine.fit(pl.DataFrame(), features=names, params={}, seed=study.experiment.seed, lineage=lineage)
        artifact.save(artifact_folder(home, artifact.model_id))
        folds = [
            msgspec.structs.replace(entry, model_id=artifact.model_id, fingerprint=inputs, rows=0)
            for entry in next(iter(indexes.values())).folds
        ]
        index = Index(engine=ENSEMBLE, dataset=study.dataset.key, inputs=inputs, folds=tuple(folds))
        _write_index(home, key, index)
    return StepReport(
        worked=worked,
        data_version=index.folds[0].model_id,
        code_version=source_version("tidemill.models.ensemble"),
        facts={"engines": len(names)},
        columns=("engine", "weight", "models"),
        table=tuple((name, 1.0 / len(names), len(members[name])) for name in names),
    )


def _index_of(study: Study, spec: EngineSpec) -> Index:
    index = read_index(models_home(study.workspace), study.engine_key(spec))
    if index is None:
        raise UnknownNameError("trained model", spec.name, hint=f"Materialize models/{spec.name} first.")
    return index


def predict_ensemble(study: Study) -> StepReport:
    """The engines' predictions combined, fold by fold."""
    from tidemill.models.ensemble import wide

    home = models_home(study.workspace)
    index = read_index(home, study.ensemble_key)
    if index is None:
        raise UnknownNameError("trained model", ENSEMBLE, hint="Materialize models/ensemble first.")
    names = tuple(spec.name for spec in study.experiment.engines)
    keys = {name: study.engine_key(spec_of(study, name)) for name in names}
    versions = {name: study.lake.manifests(PREDICTIONS, key) for name, key in keys.items()}
    have = study.lake.manifests(PREDICTIONS, study.ensemble_key)
    model_id, combined = index.folds[0].model_id, 0
    for fold in study.folds:
        partition = f"fold-{fold.number:03d}"
        print_ = fingerprint(model_id, {name: manifests[partition].data_version for name, manifests in versions.items()})
        if partition in have and have[partition].fingerprint == print_:
            continue
        columns = ("symbol", "open_time", "engine", "prediction")
        parts = [study.lake.scan(PREDICTIONS, key, partitions=[partition]).select(columns).collect() for key in keys.values()]
        artifact = load(artifact_folder(home, model_id))
        scored = engine_named(ENSEMBLE).predict(artifact, wide(pl.concat(parts), names))
        frame = _prediction_frame(scored, ENSEMBLE, fold.number, model_id, study)
        _keep(study, study.ensemble_key, partition, frame, print_)
        combined += 1
    _drop_old_folds(study, study.ensemble_key, have)
    return _prediction_report(study, [(ENSEMBLE, study.ensemble_key)], combined)


def _keep(study: Study, key: str, partition: str, frame: pl.DataFrame, print_: str) -> None:
    """Predictions of a fold to Postgres and, when they are safe there, to the lake, whose manifest says that it is done."""
    rows = frame.filter(pl.col("prediction").is_not_null()).with_columns(pl.lit(study.dataset.key).alias("dataset"))
    study.workspace.call(write_predictions, study.workspace.database, rows)
    study.lake.write(PREDICTIONS, key, partition, frame, fingerprint=print_)
    if frame.height:
        forget_predictions(study.workspace, frame["symbol"].unique().to_list(), str(frame["engine"][0]))


def _drop_old_folds(study: Study, key: str, have: dict[str, Manifest]) -> None:
    for gone in have.keys() - {f"fold-{fold.number:03d}" for fold in study.folds}:
        study.lake.drop(PREDICTIONS, key, gone)


def _prediction_report(study: Study, keys: Sequence[tuple[str, str]], worked: int) -> StepReport:
    found = {name: study.lake.manifests(PREDICTIONS, key) for name, key in keys}
    every = [manifest for manifests in found.values() for manifest in manifests.values() if manifest.rows]
    table = tuple(
        (name, len(manifests), sum(manifest.rows for manifest in manifests.values())) for name, manifests in found.items()
    )
    return StepReport(
        worked=worked > 0,
        rows=sum(manifest.rows for manifest in every),
        symbols=max((manifest.symbols for manifest in every), default=0),
        start=min((manifest.start for manifest in every if manifest.start), default=None),
        end=max((manifest.end for manifest in every if manifest.end), default=None),
        bytes=sum(manifest.bytes for manifest in every),
        data_version=fingerprint({name: [m.data_version for m in manifests.values()] for name, manifests in found.items()}),
        code_version=source_version("tidemill.models.registry"),
        facts={"folds scored": worked},
        columns=("engine", "folds", "rows"),
        table=table,
        notes=("Every prediction is out of sample: its model was trained on bars before its test window, less the embargo.",),
    )


def stored_models(workspace: Workspace) -> list[dict[str, Any]]:
    """Every model in an index of this home, newest test window first."""
    indexes = [
        msgspec.json.decode(path.read_bytes(), type=Index) for path in sorted((models_home(workspace) / "index").glob("*.json"))
    ]
    rows = [
        {"engine": index.engine, "dataset": index.dataset, **msgspec.to_builtins(entry)}
        for index in indexes
        for entry in index.folds
    ]
    return sorted(rows, key=lambda row: (row["test_start"], row["engine"]), reverse=True)


def model_manifest(workspace: Workspace, model_id: str) -> dict[str, Any]:
    """Manifest of a stored model. UnknownNameError names those that exist; a damaged one is an IntegrityError."""
    known = sorted({str(row["model_id"]) for row in stored_models(workspace)})
    if model_id not in known:
        raise UnknownNameError("model", model_id, known, hint="`tidemill models list` shows all.")
    artifact = load(artifact_folder(models_home(workspace), model_id))
    manifest: dict[str, Any] = msgspec.to_builtins(artifact.manifest)
    return {
        "model_id": model_id,
        "hash": artifact.hash,
        **manifest["inputs"],
        "metrics": manifest["metrics"],
        "origin": manifest["origin"],
    }
