"""What decides whether features are those of the kernels that there are."""

from pathlib import Path

import pytest

from tidemill.features import kernel_sources
from tidemill.features.api import feature_set


def test_changed_code_changes_the_hash_of_the_kernels_and_changed_words_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kernel_sources.sources_hash()
    copy = tmp_path / "features"
    (copy / "kernels").mkdir(parents=True)
    source = Path(kernel_sources.__file__).parent
    for path in [source / "opcodes.py", *(source / "kernels").glob("*.py")]:
        (copy / path.relative_to(source)).write_bytes(path.read_bytes())
    monkeypatch.setattr(kernel_sources, "_HERE", copy)
    assert kernel_sources.sources_hash.__wrapped__() == before
    changed = copy / "kernels" / "recursive.py"
    text = changed.read_text()
    changed.write_text(f'"""Other words."""\nimport math\n{text}\n# changed\n')
    assert kernel_sources.sources_hash.__wrapped__() == before
    changed.write_text(f"{text}\n_NEW = 1\n")
    assert kernel_sources.sources_hash.__wrapped__() != before


def test_features_have_the_names_that_trials_of_earlier_homes_know_them_by() -> None:
    assert feature_set("alpha158").fingerprint.startswith("20c913f48050e930")
    assert feature_set("classic").fingerprint.startswith("c223ac4b18962a7e")


def test_what_is_noted_of_the_released_files_is_what_comes_of_them() -> None:
    # After a change of a kernel both are to be noted anew.
    assert (kernel_sources.raw_hash(), kernel_sources.deciding_hash()) == kernel_sources.RELEASED
