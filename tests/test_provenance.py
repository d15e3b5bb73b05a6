"""Fingerprints: equal means equal work, so what may change them and what may not."""

from pathlib import Path

import pytest

from tidemill import provenance


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of three modules: `tidemill.a` imports `b` at the top, `b` imports `c` inside a function."""
    package = tmp_path / "tidemill"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from tidemill import (\n    b,  # why\n)\n")
    (package / "b.py").write_text("def work():\n    from tidemill.c import helper\n    return helper()\n")
    (package / "c.py").write_text("def helper():\n    return 1\n")
    (package / "d.py").write_text("unrelated = 1\n")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return package


def version_of(module: str) -> str:
    provenance._module_file.cache_clear()
    provenance._source.cache_clear()
    provenance._version.cache_clear()
    return provenance.source_version(module)


def test_a_changed_helper_two_imports_away_changes_the_version(project: Path) -> None:
    before = version_of("tidemill.a")
    (project / "c.py").write_text("def helper():\n    return 2\n")
    assert version_of("tidemill.a") != before


def test_an_unrelated_module_changes_nothing(project: Path) -> None:
    before = version_of("tidemill.a")
    (project / "d.py").write_text("unrelated = 2\n")
    assert version_of("tidemill.a") == before


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert provenance.fingerprint({"a": 1, "b": 2}) == provenance.fingerprint({"b": 2, "a": 1})
    assert provenance.fingerprint(1, 2) != provenance.fingerprint(2, 1)
    assert provenance.fingerprint("1") != provenance.fingerprint(1)


def test_a_missing_library_has_a_version_of_its_own() -> None:
    assert provenance.library_version("no-such-distribution-here") == "absent"
    assert provenance.library_version("msgspec") != "absent"


@pytest.fixture(autouse=True)
def clean_caches() -> object:
    yield
    provenance._module_file.cache_clear()
    provenance._source.cache_clear()
    provenance._version.cache_clear()
