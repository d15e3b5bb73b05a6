"""The cache of compiled functions follows the source, the helpers' included."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tidemill import compiled
from tidemill.backtest.warm import warm
from tidemill.compiled import entry, kernel


@kernel
def doubled(value: float) -> float:
    return 2.0 * value


@entry
def quadrupled(value: float) -> float:
    return doubled(doubled(value))


def test_an_entry_calls_kernels() -> None:
    assert quadrupled(1.5) == 6.0


def test_a_read_only_installation_compiles_without_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setattr(compiled, "_FOLDER", blocked)

    @entry
    def tripled(value: float) -> float:
        return 3.0 * value

    assert tripled(2.0) == 6.0


def test_numbas_own_settings_are_left_as_they_were() -> None:
    code = """
        from numba import config
        before = config.CACHE_DIR
        import tidemill.backtest.scan
        assert config.CACHE_DIR == before
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_warming_up_can_be_done_twice_and_fills_the_cache() -> None:
    warm()
    warm()
    assert any(compiled._FOLDER.rglob("scan.scan*.nbi"))
