"""A user's own file of features."""

from pathlib import Path

import pytest

from tests.features.conftest import random_panel
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.features.api import compute, explain, feature_set
from tidemill.features.declaration import Features, shipped
from tidemill.user_modules.loading import Module, load_module

GAP = 'feature("{}", close / mean(close, 20) - 1, unit="ratio", about="distance to the mean")\n'


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def known(module: Module) -> Features:
    """The names of a file beside those that ship."""
    return shipped().joined(module.own.features)


def test_a_file_declares_features_that_compute_beside_the_shipped_ones(tmp_path: Path) -> None:
    text = (
        "window = 20\n"
        + GAP.format("own_gap_a")
        + 'feature("own_up_a", where(close > ref(close, 1), volume, 0.0), about="up volume")\n'
    )
    made = load_module(write(tmp_path / "mine.py", text))
    assert made.features == ("own_gap_a", "own_up_a")
    assert explain("own_gap_a", known(made)).formula == "(close / mean(close, 20, 1)) - 1"
    bars = random_panel(1, symbols=2, slots=60)
    frame, _ = compute(bars, feature_set("own_gap_a", "MA20", known=known(made)))
    assert (1 / frame["MA20"] - 1 - frame["own_gap_a"]).fill_nan(0.0).abs().max() < 1e-12


def test_imports_work_too(tmp_path: Path) -> None:
    text = (
        "from tidemill.features.declaration import feature\nfrom tidemill.features.operators import close, mean\n"
        + GAP.format("own_gap_b")
    )
    assert load_module(write(tmp_path / "mine.py", text)).features == ("own_gap_b",)


def test_a_changed_file_is_another_module_and_the_one_before_stays_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", GAP.format("own_gap_c") + GAP.format("own_gone_c"))
    before = load_module(path)
    after = load_module(write(path, GAP.format("own_gap_c").replace("20", "10")))
    assert after.features == ("own_gap_c",)
    assert [explain("own_gap_c", known(made)).lookback for made in (before, after)] == [20, 10]
    with pytest.raises(UnknownNameError):
        explain("own_gone_c", known(after))


def test_a_text_that_was_run_before_is_not_run_again(tmp_path: Path) -> None:
    text = GAP.format("own_gap_d")
    first = load_module(write(tmp_path / "mine.py", text))
    load_module(write(tmp_path / "mine.py", text.replace("20", "10")))
    assert load_module(write(tmp_path / "mine.py", text)) is first
    assert load_module(write(tmp_path / "other.py", text)) is not first


def test_what_a_file_declares_is_known_to_nobody_else(tmp_path: Path) -> None:
    load_module(write(tmp_path / "mine.py", GAP.format("own_gap_e")))
    with pytest.raises(UnknownNameError):
        explain("own_gap_e")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature('x', close +)\n", "not valid Python.* line 1"),
        ("\n\nfeature('x', mena(close, 5))\n", "name that does not exist on line 3.*mena"),
        ("feature('x', mean(close, -5))\n", "line 1.*window of -5"),
        ("feature('x', mean(close, 5) if close > open else close)\n", "line 1.*no truth value"),
        ("feature('sma_20', close)\n", "line 1.*exists already"),
        ("feature('close', close)\n", "cannot be the name of a feature"),
        ("feature('../x', close)\n", "cannot be the name of a feature"),
        ("feature('x', 'close')\n", "cannot be part of an expression"),
        ("1 / 0\n", "line 1: ZeroDivisionError"),
        ("import nothing_of_this_name\n", "line 1.*nothing_of_this_name"),
        ("value = 1\n", "declares no feature"),
        ("feature('x', close)\n" * 1 + "boom\n", "line 2"),
    ],
)
def test_a_broken_file_is_refused_with_its_line_and_leaves_nothing_behind(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        load_module(write(tmp_path / "broken.py", text))
    with pytest.raises(UnknownNameError):
        explain("x")


def test_a_file_that_is_absent_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_module(tmp_path / "absent.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="UTF-8"):
        load_module(tmp_path / "bytes.py")
