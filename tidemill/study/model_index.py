"""Which artifact serves which fold: the index of trained models, where artifacts lie, and what a manifest says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tidemill.config import Settings
from tidemill.domain.errors import UnknownNameError
from tidemill.domain.experiment import EngineSpec
from tidemill.durable import damaged, read_sealed, sweep, write_sealed
from tidemill.models.artifact import MANIFEST_FILE, Stated, load, read_manifest
from tidemill.provenance import fingerprint
from tidemill.storage.results import write_models
from tidemill.study.freshness import F, StepReport
from tidemill.study.study import Study
from tidemill.study.tables import FEATURES, LABELS
from tidemill.study.workspace import Workspace


class TrainedFold(msgspec.Struct, frozen=True, kw_only=True):
    """Which artifact serves a fold, and the fingerprint of what it was made of.

    start, end: ISO texts, of the data it was trained on; empty where it was trained on none. seen: fingerprint of the months
    that the window touches, whole. While it is equal nothing has to be read to know that nothing changed.
    """

    fold: int
    fingerprint: str
    model_id: str
    rows: int
    start: str
    end: str
    test_start: datetime
    test_end: datetime
    seen: str = ""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """All folds of one engine on one dataset; `inputs` is the fingerprint of everything at the last success."""

    engine: str
    dataset: str
    inputs: str
    folds: tuple[TrainedFold, ...]


def models_in(settings: Settings) -> Path:
    return settings.home / "models"


def models_home(workspace: Workspace) -> Path:
    return models_in(workspace.settings)


def _index_path(home: Path, engine_key: str) -> Path:
    return home / "index" / f"{engine_key}.json"


def artifact_folder(home: Path, model_id: str) -> Path:
    return home / "artifacts" / model_id


def all_there(home: Path, index: Index) -> bool:
    """Whether every model that an index names is stored: an index alone says nothing of them."""
    return all(is_stored(home, entry.model_id) for entry in index.folds)


def is_stored(home: Path, model_id: str) -> bool:
    """Whether a model is there: its manifest is, which a folder alone does not say."""
    return (artifact_folder(home, model_id) / MANIFEST_FILE).is_file()


def has_index(home: Path, engine_key: str) -> bool:
    """Whether an engine was trained, without a look at what its index says."""
    return _index_path(home, engine_key).is_file()


def read_index(home: Path, engine_key: str) -> Index | None:
    """IntegrityError when it is damaged."""
    path = _index_path(home, engine_key)
    return index_in(path) if path.is_file() else None


def index_in(path: Path) -> Index:
    """What an index file says. IntegrityError when it is damaged."""
    try:
        return msgspec.json.decode(read_sealed(path), type=Index)
    except msgspec.DecodeError as exc:
        raise damaged(path) from exc


def store_index(study: Study, engine_key: str, index: Index) -> None:
    """The models of an index to Postgres and, when they are safe there, the index itself, which says that it is done."""
    study.workspace.call(write_models, study.workspace.database, _model_rows(study, index))
    _write_index(models_home(study.workspace), engine_key, index)


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
                "manifest": msgspec.json.encode(read_manifest(folder)).decode(),
                "metrics": "{}",
            }
        )
    return pl.DataFrame(rows, schema_overrides={"fold": pl.Int32}).unique("model_id", keep="first", maintain_order=True)


def _write_index(home: Path, engine_key: str, index: Index) -> None:
    path = _index_path(home, engine_key)
    write_sealed(path, msgspec.json.format(msgspec.json.encode(index), indent=1))
    sweep(path.parent)


def month_versions(study: Study, *tables: str) -> dict[str, dict[str, str]]:
    """Table (features, labels) → month → data version, in order of time."""
    keys = {FEATURES: study.features_key, LABELS: study.labels_key}
    return {table: study.part_versions(table, keys[table]) for table in tables}


def touched(months: dict[str, dict[str, str]], start: datetime | None, end: datetime) -> dict[str, dict[str, str]]:
    """Versions of the whole months that a window touches, the one in which it ends included; start None: from the first."""
    first, last = "" if start is None else f"{start:%Y-%m}", f"{end:%Y-%m}"
    return {table: {month: held for month, held in found.items() if first <= month <= last} for table, found in months.items()}


def spec_of(study: Study, name: str) -> EngineSpec:
    """The experiment's own entry for an engine; UnknownNameError when it has none."""
    for spec in study.experiment.engines:
        if spec.name == name:
            return spec
    raise UnknownNameError("engine in this experiment", name, (spec.name for spec in study.experiment.engines))


def index_of(study: Study, spec: EngineSpec) -> Index:
    index = read_index(models_home(study.workspace), study.engine_key(spec))
    if index is None:
        raise UnknownNameError("trained model", spec.name, hint=f"Materialize models/{spec.name} first.")
    return index


def indices(home: Path) -> list[Index]:
    """Every index of this home. IntegrityError when one is damaged."""
    return [index_in(path) for path in index_files(home)]


def index_files(home: Path) -> list[Path]:
    """Where the indices of this home lie, each named by its engine's key."""
    return sorted((home / "index").glob("*.json"))


def indexed_models(home: Path) -> list[str]:
    """Ids of all models in an index of this home, sorted."""
    return sorted({entry.model_id for index in indices(home) for entry in index.folds})


def stated_by(home: Path, model_id: str) -> Stated:
    """The manifest of a stored model, its weights unread. UnknownNameError names the models that exist."""
    name, known = Path(model_id).name, indexed_models(home)
    if model_id not in known and not is_stored(home, name):
        raise UnknownNameError("model", model_id, known, hint="`tidemill models list` shows all.")
    return read_manifest(artifact_folder(home, name))


def stored_weights(study: Study, model_id: str) -> dict[str, float]:
    """Engine → weight in one ensemble, in its order."""
    artifact = load(artifact_folder(models_home(study.workspace), model_id))
    return dict(zip(artifact.inputs.features, map(float, artifact.tensors["weights"]), strict=True))


def trained_report(index: Index, *, worked: bool, code_version: str, facts: F, **more: Any) -> StepReport[F]:
    """The report of a step that trained: its size and range come from the index of its models, which lie beside the lake."""
    counted: dict[str, Any] = {
        "rows": sum(entry.rows for entry in index.folds),
        "start": min(entry.test_start for entry in index.folds),
        "end": max(entry.test_end for entry in index.folds),
        "data_version": fingerprint([entry.model_id for entry in index.folds]),
    }
    return StepReport(worked=worked, code_version=code_version, facts=facts, **(counted | more))


def silent_notes(index: Index) -> tuple[str, ...]:
    """One sentence about the folds in which an engine had nothing to learn from; empty where there is none."""
    silent = sum(entry.rows == 0 for entry in index.folds)
    if not silent:
        return ()
    return (
        f"The engine {index.engine} is silent in {silent} of {len(index.folds)} folds: it found nothing to learn from and "
        "predicts nothing there. The ensemble does without it.",
    )
