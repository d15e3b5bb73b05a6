"""Where the compiled kernels are kept."""

from pathlib import Path

import pytest

from tidemill.features import kernel_cache


def test_a_changed_callee_changes_the_folder_of_the_machine_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel_cache.sources_hash()
    copy = tmp_path / "features"
    (copy / "kernels").mkdir(parents=True)
    source = Path(kernel_cache.__file__).parent
    for path in [source / "opcodes.py", *(source / "kernels").glob("*.py")]:
        (copy / path.relative_to(source)).write_bytes(path.read_bytes())
    monkeypatch.setattr(kernel_cache, "_HERE", copy)
    assert kernel_cache.sources_hash.__wrapped__() == before
    changed = copy / "kernels" / "recursive.py"
    changed.write_text(changed.read_text() + "\n# changed\n")
    assert kernel_cache.sources_hash.__wrapped__() != before


def test_machine_code_goes_to_the_chosen_folder_and_nowhere_when_none_is_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel_cache._folder(str(tmp_path)) == tmp_path / f"kernels-{kernel_cache.sources_hash()}"
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kernel_cache, "_HERE", tmp_path / "file")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "file")
    assert kernel_cache._folder("") is None
