"""Which modules a clean process imports."""

import sys
from pathlib import Path

import pytest

from tidemill.user_modules.libraries import import_libraries, named_in

TEXT = """
import colorsys
from email import utils as mail

def f(bars):
    import wave
    from . import beside
"""


def test_every_import_of_a_file_is_named_wherever_it_stands_and_none_of_what_is_no_python() -> None:
    assert list(named_in(TEXT)) == ["colorsys", "email", "email.utils", "wave"]
    assert list(named_in("import a +")) == []


def test_libraries_are_imported_and_a_person_s_own_files_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tidemill_test_own.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    import_libraries(["colorsys", "tidemill_test_own", "tidemill_test_absent", "colorsys.absent"])
    assert "colorsys" in sys.modules
    assert "tidemill_test_own" not in sys.modules
