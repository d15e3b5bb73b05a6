"""What decides whether features are those of the kernels that there are."""

from pathlib import Path

import pytest

from tidemill.features import kernel_sources


def test_a_changed_callee_changes_the_hash_of_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel_sources.sources_hash()
    copy = tmp_path / "features"
    (copy / "kernels").mkdir(parents=True)
    source = Path(kernel_sources.__file__).parent
    for path in [source / "opcodes.py", *(source / "kernels").glob("*.py")]:
        (copy / path.relative_to(source)).write_bytes(path.read_bytes())
    monkeypatch.setattr(kernel_sources, "_HERE", copy)
    assert kernel_sources.sources_hash.__wrapped__() == before
    changed = copy / "kernels" / "recursive.py"
    changed.write_text(changed.read_text() + "\n# changed\n")
    assert kernel_sources.sources_hash.__wrapped__() != before
