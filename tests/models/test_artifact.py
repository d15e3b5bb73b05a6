import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from tidemill.domain.errors import InputError, IntegrityError, UnavailableError
from tidemill.durable import read_sealed, write_sealed
from tidemill.models.artifact import Artifact, TrainingInputs, load, make


def inputs(**changes: Any) -> TrainingInputs:
    values: dict[str, Any] = {
        "engine": "ridge",
        "features": ("a", "b"),
        "feature_fingerprint": "f1",
        "code_version": "c1",
        "data_versions": {"bars/2024-01": "v1"},
        "label": "forward_return",
        "horizon": 5,
        "split": {"train_start": "2024-01-01"},
        "seed": 7,
        "params": {"penalty": 0.1},
        "rows": 100,
        "start": "2024-01-01T00:00:00+00:00",
        "end": "2024-04-01T00:00:00+00:00",
    }
    return TrainingInputs(**(values | changes))


def artifact(**changes: Any) -> Artifact:
    return make(inputs(**changes), tensors={"weights": np.array([0.5, -0.25]), "wide": np.ones((2, 3), dtype=np.float32)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    artifact().save(tmp_path / "model")
    return tmp_path / "model"


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the manifest after `change`, with a seal that fits."""
    path = folder / "manifest.json"
    content = msgspec.json.decode(read_sealed(path))
    change(content)
    write_sealed(path, msgspec.json.encode(content))


def test_what_is_saved_is_loaded_with_the_same_hash(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.hash == artifact().hash
    assert loaded.manifest == artifact().manifest
    assert {name: tensor.tolist() for name, tensor in loaded.tensors.items()} == {
        "weights": [0.5, -0.25],
        "wide": [[1.0] * 3] * 2,
    }


def test_a_text_model_is_saved_as_text(tmp_path: Path) -> None:
    make(inputs(engine="lightgbm"), text="tree\n…".replace("…", "end")).save(tmp_path / "m")
    assert (tmp_path / "m" / "model.txt").read_text() == "tree\nend"
    assert load(tmp_path / "m").text == "tree\nend"


def test_a_folder_holds_the_manifest_and_the_weights_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_hash_covers_every_canonical_input_and_the_weights() -> None:
    changed = {
        "engine": "other",
        "features": ("b", "a"),
        "feature_fingerprint": "f2",
        "code_version": "c2",
        "data_versions": {"bars/2024-01": "v2"},
        "label": "other",
        "horizon": 6,
        "split": {},
        "seed": 8,
        "params": {"penalty": 0.2},
        "rows": 101,
        "start": "",
        "end": "",
    }
    assert set(changed) == set(TrainingInputs.__struct_fields__)
    hashes = {artifact(**{name: value}).hash for name, value in changed.items()}
    other_weights = make(inputs(), tensors={"weights": np.array([0.5, -0.25000001]), "wide": np.ones((2, 3), dtype=np.float32)})
    other_shape = make(inputs(), tensors={"weights": np.array([0.5, -0.25]), "wide": np.ones((3, 2), dtype=np.float32)})
    assert len(hashes | {artifact().hash, other_weights.hash, other_shape.hash}) == len(changed) + 3


def test_metrics_time_host_and_the_order_of_keys_stay_outside_the_hash() -> None:
    plain = artifact(params={"a": 1, "b": 2})
    assert plain.with_metrics({"information_coefficient": 0.04}).hash == plain.hash
    assert make(inputs(params={"b": 2, "a": 1}), tensors=plain.tensors, origin={"host": "h"}).hash == plain.hash


def test_metrics_are_kept_beside_the_model(tmp_path: Path) -> None:
    artifact().with_metrics({"information_coefficient": 0.04, "sharpe": None}).save(tmp_path / "m")
    assert load(tmp_path / "m").manifest.metrics == {"information_coefficient": 0.04, "sharpe": None}


def test_saving_again_replaces_the_whole_model(folder: Path) -> None:
    artifact(seed=8).save(folder)
    assert load(folder).inputs.seed == 8
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_an_interrupted_save_leaves_the_old_model_and_no_litter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match="No space left"):
        artifact(seed=8).save(folder)
    monkeypatch.undo()
    assert load(folder).inputs.seed == 7
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_model_that_is_not_there_is_a_plain_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model"):
        load(tmp_path / "none")


def test_a_model_of_another_feature_set_is_refused(folder: Path) -> None:
    assert load(folder, feature_fingerprint="f1").inputs.seed == 7
    with pytest.raises(InputError, match="another feature set"):
        load(folder, feature_fingerprint="f2")


def test_weights_that_are_not_finite_never_become_an_artifact() -> None:
    with pytest.raises(InputError, match="non-finite"):
        make(inputs(), tensors={"weights": np.array([1.0, np.nan])})


class Bomb:
    """Unpickling this writes a file, which shows that it was executed."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json", "model.pkl"])
def test_a_poisoned_pickle_is_refused_and_never_executed(folder: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "executed"
    poison = pickle.dumps(Bomb(marker))
    (folder / name).write_bytes(poison)
    with pytest.raises(IntegrityError):
        load(folder)
    assert not marker.exists()
    pickle.loads(poison)
    assert marker.exists(), "the poison of this test does nothing"


def test_a_poisoned_pickle_with_a_fitting_manifest_is_refused_too(folder: Path, tmp_path: Path) -> None:
    import hashlib

    poison = pickle.dumps(Bomb(tmp_path / "executed"))
    (folder / "weights.safetensors").write_bytes(poison)
    edited(folder, lambda m: m.update(weights_bytes=len(poison), weights_sha256=hashlib.sha256(poison).hexdigest()))
    with pytest.raises(IntegrityError, match="does not hold tensors"):
        load(folder)
    assert not (tmp_path / "executed").exists()


def swap_weights(folder: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Other tensors, with their true size and checksum in the manifest."""
    import hashlib

    data = save(tensors)
    (folder / "weights.safetensors").write_bytes(data)
    edited(folder, lambda m: m.update(weights_bytes=len(data), weights_sha256=hashlib.sha256(data).hexdigest()))


GOOD = {"weights": np.array([0.5, -0.25]), "wide": np.ones((2, 3), dtype=np.float32)}


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"weights": GOOD["weights"]}, "do not match the manifest"),
        (GOOD | {"more": np.ones(1)}, "do not match the manifest"),
        (GOOD | {"weights": np.ones(3)}, "do not match the manifest"),
        (GOOD | {"weights": np.ones(2, dtype=np.float32)}, "do not match the manifest"),
        (GOOD | {"weights": np.ones(2, dtype=np.int64)}, "do not match the manifest"),
        (GOOD | {"weights": np.array([np.nan, 1.0])}, "non-finite"),
        (GOOD | {"weights": np.array([np.inf, 1.0])}, "non-finite"),
        (GOOD | {"weights": np.array([0.5, -0.26])}, "hash does not match"),
    ],
)
def test_other_tensors_are_refused_even_with_a_fitting_checksum(
    folder: Path, tensors: dict[str, np.ndarray[Any, Any]], text: str
) -> None:
    swap_weights(folder, tensors)
    with pytest.raises(IntegrityError, match=text):
        load(folder)


def grow(manifest: dict[str, Any]) -> None:
    manifest["manifest"]["surprise"] = 1


def drop_seed(manifest: dict[str, Any]) -> None:
    del manifest["manifest"]["inputs"]["seed"]


def retype(manifest: dict[str, Any]) -> None:
    manifest["manifest"]["inputs"]["seed"] = "7"


def redirect(manifest: dict[str, Any]) -> None:
    manifest["manifest"]["weights_file"] = "../../etc/passwd"


def reseed(manifest: dict[str, Any]) -> None:
    manifest["manifest"]["inputs"]["seed"] = 8


def future(manifest: dict[str, Any]) -> None:
    manifest["manifest"]["format"] = 2


@pytest.mark.parametrize("change", [grow, drop_seed, retype, redirect, reseed, future])
def test_a_manifest_that_says_anything_else_is_refused(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edited(folder, change)
    with pytest.raises(IntegrityError):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{" * 100_000, b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(IntegrityError, match="manifest"):
        load(folder)


def test_a_cut_off_weights_file_is_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="do not match the manifest"):
        load(folder)


def test_an_oversized_manifest_is_refused_without_reading_all_of_it(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(IntegrityError, match="larger than 4 MiB"):
        load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
def test_links_pipes_and_folders_in_place_of_files_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    original = (folder / name).read_bytes()
    (tmp_path / "elsewhere").write_bytes(original)
    for put in (lambda path: path.symlink_to(tmp_path / "elsewhere"), os.mkfifo, Path.mkdir):
        path = folder / name
        path.rmdir() if path.is_dir() else path.unlink()
        put(path)
        with pytest.raises(IntegrityError, match="regular file"):
            load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(IntegrityError):
        load(folder)


def test_a_text_model_that_is_not_ascii_is_refused(tmp_path: Path) -> None:
    make(inputs(engine="lightgbm"), text="tré").save(tmp_path / "m")
    with pytest.raises(IntegrityError, match="plain text"):
        load(tmp_path / "m")
