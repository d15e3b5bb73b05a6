"""Which models were trained, and what one of them was made of, down to the versions of its data."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import msgspec

from tidemill.config import Settings
from tidemill.domain.errors import UnknownNameError
from tidemill.models.artifact import Artifact, TrainingInputs, load
from tidemill.study.model_index import TrainedFold, artifact_folder, indexed_models, indices, models_in, stated_by
from tidemill.study.tables import ENSEMBLE


class StoredModel(TrainedFold, frozen=True, kw_only=True):
    """A model that serves a fold of an engine on a dataset."""

    engine: str
    dataset: str


class LineageEntry(NamedTuple):
    """One thing that a model was made of; depth: 0 for the model itself, 1 for what went into it, and so on."""

    depth: int
    name: str
    version: str


class ModelDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest of a model says. weights: of the engines in an ensemble, empty for every other model."""

    model_id: str
    hash: str
    inputs: TrainingInputs
    metrics: dict[str, float | None]
    origin: dict[str, str]
    weights: dict[str, float]
    lineage: tuple[LineageEntry, ...]


async def stored_models(settings: Settings) -> tuple[StoredModel, ...]:
    """Every model in an index of this home, newest test window first."""
    return await asyncio.to_thread(_stored, models_in(settings))


def _stored(home: Path) -> tuple[StoredModel, ...]:
    found = [
        StoredModel(engine=index.engine, dataset=index.dataset, **msgspec.structs.asdict(entry))
        for index in indices(home)
        for entry in index.folds
    ]
    return tuple(sorted(found, key=lambda one: (one.test_start, one.engine), reverse=True))


async def model_details(settings: Settings, model_id: str) -> ModelDetails:
    """A stored model. UnknownNameError names those that exist; a damaged one is an IntegrityError."""
    return await asyncio.to_thread(_details, models_in(settings), model_id)


def _details(home: Path, model_id: str) -> ModelDetails:
    known = indexed_models(home)
    if model_id not in known:
        raise UnknownNameError("model", model_id, known, hint="`tidemill models list` shows all.")
    artifact = load(artifact_folder(home, model_id))
    return ModelDetails(
        model_id=model_id,
        hash=artifact.hash,
        inputs=artifact.inputs,
        metrics=artifact.manifest.metrics,
        origin=artifact.manifest.origin,
        weights=_weights(artifact),
        lineage=tuple(_lineage(home, model_id)),
    )


def _weights(artifact: Artifact) -> dict[str, float]:
    """Engine → weight of an ensemble; equal ones where its manifest names none."""
    if artifact.inputs.engine != ENSEMBLE:
        return {}
    names = artifact.inputs.features
    weights = artifact.inputs.params.get("weights") or [1.0 / len(names)] * len(names)
    return dict(zip(names, weights, strict=True))


def _lineage(home: Path, model_id: str, depth: int = 0) -> list[LineageEntry]:
    """From a model down to the versions of its data; an ensemble's members stand below it."""
    stated = stated_by(home, model_id)
    inputs = stated.manifest.inputs
    rows = [
        LineageEntry(depth, model_id, stated.hash),
        LineageEntry(depth + 1, f"code of {inputs.engine}", inputs.code_version),
        LineageEntry(depth + 1, "features", inputs.feature_fingerprint),
    ]
    for name, version in sorted(inputs.data_versions.items()):
        folder = artifact_folder(home, Path(version).name)
        if name == version.rpartition("-")[0] and folder.is_dir():
            rows += _lineage(home, version, depth + 1)
        else:
            rows.append(LineageEntry(depth + 1, name, version))
    return rows
