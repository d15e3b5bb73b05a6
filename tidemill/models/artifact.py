"""A trained model as a folder: `manifest.json` beside `weights.safetensors` or `model.txt`, and nothing else. Never a pickle.

A model file is input like any other: `load` reads data, executes nothing, and refuses with IntegrityError whatever is not
exactly what the manifest says. The manifest is sealed, so it may be read without the weights.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidemill.domain.errors import InputError, IntegrityError, UnavailableError
from tidemill.durable import make_folder, replacing_folder, seal, sweep, unseal

MANIFEST_FILE = "manifest.json"
TENSOR_FILE: Final = "weights.safetensors"
TEXT_FILE: Final = "model.txt"
MAXIMUM_MANIFEST_BYTES = 4 << 20
MAXIMUM_WEIGHT_BYTES = 512 << 20

Tensor = NDArray[np.float32] | NDArray[np.float64]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    shape: tuple[int, ...]
    dtype: Literal["float32", "float64"]


class TrainingInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What decided the weights; the artifact's hash covers all of it. Times are ISO texts in UTC."""

    engine: str
    features: tuple[str, ...]
    feature_fingerprint: str
    code_version: str
    data_versions: dict[str, str]
    label: str
    horizon: int
    split: dict[str, str]
    seed: int
    params: dict[str, Any]
    rows: int
    start: str
    end: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything about a model but its weights. `metrics` and `origin` (time, host, libraries) stay outside the hash."""

    format: Literal[1] = 1
    inputs: TrainingInputs
    weights_file: Literal["weights.safetensors", "model.txt"]
    tensors: dict[str, TensorSpec] = {}
    metrics: dict[str, float | None] = {}
    origin: dict[str, str] = {}


class Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `manifest.json`: the manifest, and what it says of the weights beside it."""

    manifest: Manifest
    hash: str
    weights_bytes: int
    weights_sha256: str


@dataclass(frozen=True)
class Artifact:
    """A manifest and its weights: `tensors` by name, or the `text` of a LightGBM model."""

    manifest: Manifest
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    text: str = ""

    @property
    def inputs(self) -> TrainingInputs:
        return self.manifest.inputs

    @property
    def hash(self) -> str:
        """SHA-256 over the weights and the canonical inputs; not over metrics, times or host. 64 hexadecimal digits."""
        digest = hashlib.sha256(msgspec.json.encode(self.inputs, order="deterministic"))
        for name in sorted(self.tensors):
            tensor = np.ascontiguousarray(self.tensors[name])
            digest.update(f"\0{name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode())
            digest.update(tensor.tobytes())
        digest.update(self.text.encode())
        return digest.hexdigest()

    @property
    def model_id(self) -> str:
        """Short name for tables: engine and the first digits of the hash."""
        return f"{self.inputs.engine}-{self.hash[:12]}"

    def require_feature_set(self, fingerprint: str) -> None:
        """InputError when this model was trained on another feature set than the one with `fingerprint`."""
        if fingerprint != self.inputs.feature_fingerprint:
            raise InputError(
                f"The {self.inputs.engine} model was trained on another feature set: "
                f"{self.inputs.feature_fingerprint[:12] or '(unnamed)'}, not {fingerprint[:12] or '(unnamed)'}. Train it again."
            )

    def with_metrics(self, metrics: Mapping[str, float | None]) -> "Artifact":
        """The same model, with `metrics` beside it; the hash does not change."""
        return Artifact(msgspec.structs.replace(self.manifest, metrics=dict(metrics)), self.tensors, self.text)

    def save(self, folder: Path) -> None:
        """Write the artifact to `folder` as a whole or not at all; one that is there already is replaced.

        Raises UnavailableError when the disk refuses.
        """
        try:
            self._save(folder)
        except OSError as exc:
            raise UnavailableError(
                f"The model cannot be saved in {folder}: {exc.strerror}. Free some space or choose another folder."
            ) from exc

    def _save(self, folder: Path) -> None:
        make_folder(folder.parent)
        sweep(folder.parent)
        weights = self._weight_bytes()
        stored = Stated(
            manifest=self.manifest,
            hash=self.hash,
            weights_bytes=len(weights),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
        )
        with replacing_folder(folder) as made:
            (made / self.manifest.weights_file).write_bytes(weights)
            content = msgspec.json.format(msgspec.json.encode(stored, order="sorted"), indent=1)
            (made / MANIFEST_FILE).write_bytes(seal(content))

    def _weight_bytes(self) -> bytes:
        if self.manifest.weights_file == TEXT_FILE:
            return self.text.encode()
        from safetensors.numpy import save

        return save({name: np.ascontiguousarray(tensor) for name, tensor in self.tensors.items()})


def make(
    inputs: TrainingInputs,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    text: str = "",
    origin: Mapping[str, str] | None = None,
) -> Artifact:
    """An artifact of either `tensors` or `text`. Raises InputError when a weight is not finite: training went astray."""
    held = dict(tensors or {})
    for name, tensor in held.items():
        if not np.isfinite(tensor).all():
            raise InputError(f"Training {inputs.engine} gave non-finite {name}. Check the features for extreme values.")
    manifest = Manifest(
        inputs=inputs,
        weights_file=TEXT_FILE if text else TENSOR_FILE,
        tensors={name: _spec(tensor) for name, tensor in held.items()},
        origin=dict(origin or {}),
    )
    return Artifact(manifest, held, text)


def load(folder: Path, *, feature_fingerprint: str | None = None) -> Artifact:
    """The artifact in `folder`, with every byte accounted for.

    feature_fingerprint: of the feature set it is to be used with; a model of another set is refused with InputError.

    Raises IntegrityError when there is any other file, a link, a wrong size, an unknown or missing key, a tensor of another
    name, shape or kind than stated, a non-finite weight, or a hash that does not fit. InputError when there is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"There is no model in {folder}. Train it first.")
    stored = read_manifest(folder)
    manifest = stored.manifest
    _require_files(folder, {MANIFEST_FILE, manifest.weights_file})
    weights = _read(folder / manifest.weights_file, MAXIMUM_WEIGHT_BYTES)
    if len(weights) != stored.weights_bytes or hashlib.sha256(weights).hexdigest() != stored.weights_sha256:
        raise _refused(folder, "its weights do not match the manifest")
    artifact = _assembled(folder, manifest, weights)
    if artifact.hash != stored.hash:
        raise _refused(folder, "its hash does not match its content")
    if feature_fingerprint is not None:
        artifact.require_feature_set(feature_fingerprint)
    return artifact


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tensor.shape, "float32" if tensor.dtype == np.float32 else "float64")


def _assembled(folder: Path, manifest: Manifest, weights: bytes) -> Artifact:
    if manifest.weights_file == TENSOR_FILE:
        return Artifact(manifest, _tensors(folder, weights, manifest.tensors))
    try:
        return Artifact(manifest, text=weights.decode("ascii"))
    except UnicodeDecodeError as exc:
        raise _refused(folder, f"{TEXT_FILE} is not plain text") from exc


def _tensors(folder: Path, data: bytes, expected: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        tensors = parse(data)
    except (SafetensorError, KeyError, ValueError) as exc:
        raise _refused(folder, f"{TENSOR_FILE} does not hold tensors") from exc
    found = {name: (tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}
    if found != {name: (spec.shape, spec.dtype) for name, spec in expected.items()}:
        raise _refused(folder, "its tensors do not match the manifest")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise _refused(folder, "it holds a non-finite weight")
    return tensors


def read_manifest(folder: Path) -> Stated:
    """What the manifest of a stored model says, its weights unread and unchecked. IntegrityError when it is not one, or not
    what was written.
    """
    content = unseal(_read(folder / MANIFEST_FILE, MAXIMUM_MANIFEST_BYTES))
    if content is None:
        raise _refused(folder, f"{MANIFEST_FILE} is not the manifest that was written")
    try:
        return msgspec.json.decode(content, type=Stated, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _refused(folder, f"{MANIFEST_FILE} is not a manifest of this format ({exc})") from exc


def _require_files(folder: Path, expected: set[str]) -> None:
    found = {entry.name for entry in os.scandir(folder)}
    if found != expected:
        raise _refused(
            folder, f"it holds {', '.join(sorted(found ^ expected))[:200]}, which does not belong there or is missing"
        )


def _read(path: Path, limit: int) -> bytes:
    """Content of a regular file of at most `limit` bytes; links are not followed."""
    try:
        # Looked at before it is opened: opening a device or a pipe has effects of its own.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _refused(path.parent, f"{path.name} is not a regular file")
        with open(path, "rb", opener=_open_without_links) as file:
            data: bytes = file.read(limit + 1)
    except OSError as exc:
        raise _refused(path.parent, f"{path.name} cannot be read ({exc.strerror})") from exc
    if len(data) > limit:
        raise _refused(path.parent, f"{path.name} is larger than {limit >> 20} MiB")
    return data


def _open_without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _refused(folder: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"The model in {folder} is refused: {why}. Mend it with `tidemill data repair`, or restore it from a copy."
    )
