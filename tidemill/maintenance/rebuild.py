"""A model made again from its manifest alone: its data versions are found in the lake, it is retrained, the hashes compared."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.models.artifact import Artifact, TrainingInputs
from tidemill.models.base import Lineage
from tidemill.storage.content import content_version
from tidemill.storage.lake import Lake
from tidemill.study.model_index import artifact_folder, models_home, stated_by
from tidemill.study.registry import Registry
from tidemill.study.tables import FEATURES, LABELS
from tidemill.study.workspace import Workspace
from tidemill.validation.splits import Fold, training_rows

_TAIL = f"{FEATURES}+{LABELS}"


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """hash, rebuilt: of the model and of the one made again. same: whether they are equal. why: what differs, if anything."""

    model_id: str
    hash: str
    rebuilt: str
    same: bool
    why: str = ""


def rebuild(workspace: Workspace, model_id: str) -> Rebuilt:
    """Train the model `model_id` again from its manifest, and compare. The stored artifact is not changed.

    Only the manifest is read of it, so a model whose weights are lost can be made again (see `restore`). Raises
    UnknownNameError when there is none of that name, InputError when a data version is gone from the lake.
    """
    stated = stated_by(models_home(workspace), model_id)
    made = _trained(workspace, stated.manifest.inputs)
    return Rebuilt(
        model_id=model_id,
        hash=stated.hash,
        rebuilt=made.hash,
        same=made.hash == stated.hash,
        why="" if made.hash == stated.hash else _difference(stated.manifest.inputs, made.inputs),
    )


def restore(workspace: Workspace, model_id: str) -> Rebuilt:
    """As `rebuild`; an equal model is stored in the place of the old one, whose weights may be lost or damaged."""
    stated = stated_by(models_home(workspace), model_id)
    made = _trained(workspace, stated.manifest.inputs)
    same = made.hash == stated.hash
    if same:
        made.with_metrics(stated.manifest.metrics).save(artifact_folder(models_home(workspace), model_id))
    why = "" if same else _difference(stated.manifest.inputs, made.inputs)
    return Rebuilt(model_id=model_id, hash=stated.hash, rebuilt=made.hash, same=same, why=why)


def _trained(workspace: Workspace, inputs: TrainingInputs) -> Artifact:
    engine = Registry.of(workspace.settings).engines.find(inputs.engine)
    lineage = Lineage(
        feature_fingerprint=inputs.feature_fingerprint,
        data_versions=inputs.data_versions,
        label=inputs.label,
        horizon=inputs.horizon,
        split=inputs.split,
    )
    rows = pl.DataFrame() if engine.info.kind == "ensemble" else _training(workspace.lake, inputs)
    features = inputs.features if engine.info.kind == "ensemble" else _columns(rows)
    params = {name: value for name, value in inputs.params.items() if value is not None}
    return engine.fit(rows, features=features, params=params, seed=inputs.seed, lineage=lineage)


def _columns(rows: pl.DataFrame) -> tuple[str, ...]:
    return tuple(name for name in rows.columns if name not in ("symbol", "open_time", "label", "label_end_at"))


def _training(lake: Lake, inputs: TrainingInputs) -> pl.DataFrame:
    """The rows that the model was trained on: every month in the version that the manifest names."""
    if not {"train_start", "train_end"} <= inputs.split.keys():
        raise InputError(
            f"The manifest of this {inputs.engine} model names no training window; materialize models/{inputs.engine}."
        )
    start, end = (datetime.fromisoformat(inputs.split[name]) for name in ("train_start", "train_end"))
    fold = Fold(0, start, end, end, end)
    for features, labels in _candidates(lake, inputs):
        frame = _joined(lake, features, labels, f"{start:%Y-%m}", f"{end:%Y-%m}")
        last = frame.filter(pl.col("open_time").dt.strftime("%Y-%m") == f"{end:%Y-%m}")
        wanted = next((held for name, held in inputs.data_versions.items() if name.startswith(_TAIL)), None)
        if wanted == content_version(training_rows(last, fold)):
            return training_rows(frame, fold)
    raise InputError(
        f"The data that this {inputs.engine} model was trained on is no longer in the lake: {_gone(lake, inputs)}. "
        "Restore the lake of that time, or train a new model."
    )


def _candidates(lake: Lake, inputs: TrainingInputs) -> Iterator[tuple[str, str]]:
    """Lake keys of features and labels of one dataset that hold every whole month of the manifest in its version."""
    labels = list(_holding(lake, LABELS, inputs))
    for features in _holding(lake, FEATURES, inputs):
        dataset = features.rpartition(".")[0]
        yield from ((features, key) for key in labels if key.rpartition(".")[0] == dataset)


def _holding(lake: Lake, table: str, inputs: TrainingInputs) -> Iterator[str]:
    for key in lake.datasets(table):
        held = {f"{table}/{month}": manifest.data_version for month, manifest in lake.manifests(table, key).items()}
        if all(held.get(name) == version for name, version in _whole(inputs, table)):
            yield key


def _whole(inputs: TrainingInputs, table: str) -> list[tuple[str, str]]:
    return [(name, version) for name, version in inputs.data_versions.items() if name.startswith(f"{table}/")]


def _gone(lake: Lake, inputs: TrainingInputs) -> str:
    """The first version of the manifest that no dataset of the lake holds."""
    for table in (FEATURES, LABELS):
        held = {
            (f"{table}/{month}", manifest.data_version)
            for key in lake.datasets(table)
            for month, manifest in lake.manifests(table, key).items()
        }
        for name, version in _whole(inputs, table):
            if (name, version) not in held:
                return f"{name} in version {version[:12]}"
    return "no dataset holds all of its months in their versions"


def _joined(lake: Lake, features: str, labels: str, first: str, last: str) -> pl.DataFrame:
    parts = []
    for table, key in ((FEATURES, features), (LABELS, labels)):
        months = [month for month in lake.manifests(table, key) if first <= month <= last]
        parts.append(lake.scan(table, key, partitions=months).sort("symbol", "open_time").collect())
    return parts[0].join(parts[1], on=("symbol", "open_time"), how="left", maintain_order="left")


def _difference(stated: TrainingInputs, made: TrainingInputs) -> str:
    now, then = msgspec.to_builtins(made), msgspec.to_builtins(stated)
    changed = [name.replace("_", " ") for name, value in then.items() if now[name] != value]
    if "code version" in changed:
        return f"the code of {stated.engine} has changed since: {stated.code_version} then, {made.code_version} now"
    return f"{', '.join(changed)} differ" if changed else "equal inputs gave other weights; libraries or the processor differ"
