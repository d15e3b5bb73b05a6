"""The outermost layer: exit codes, --debug, and what is done with errors of every kind."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Tidemill
from tidemill.cli import main as entry
from tidemill.domain.errors import InputError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Puts a command `fail` in front that raises what the list holds."""
    errors: list[BaseException] = []

    @click.command()
    def fail() -> None:
        raise errors[0]

    monkeypatch.setattr(entry, "COMMANDS", {**entry.COMMANDS, "fail": (f"{__name__}:fail", "Fails.")})
    monkeypatch.setattr(sys.modules[__name__], "fail", fail, raising=False)
    return errors


def test_help_lists_every_command_and_exits_with_0(work: Path, tidemill: Tidemill) -> None:
    for option in ("--help", "-h"):
        answer = tidemill(option)
        assert answer.code == 0
        assert all(f"  {name} " in answer.out for name in entry.COMMANDS)
    assert tidemill("data", "show", "-h").code == 0
    assert tidemill("--version").out.startswith("tidemill, version ")


@pytest.mark.parametrize(("loaded", "frozen"), [("", True), ("import duckdb", False)])
def test_a_command_that_ends_leaves_what_it_holds_unless_duckdb_would_call_it_a_leak(loaded: str, frozen: bool) -> None:
    look = "atexit.register(lambda: print(gc.get_freeze_count() > 0, gc.get_threshold()[0], file=sys.stderr))"
    script = f"import atexit, gc, sys; {look}; {loaded}\nfrom tidemill.cli.main import main\nmain(['--help'])"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.split() == [str(frozen), "100000"]


@pytest.mark.parametrize("arguments", [("bakctest",), ("data", "shwo"), ("data",), (), ("run", "--nonsense"), ("--nonsense",)])
def test_a_wrong_use_exits_with_2_and_explains_itself_on_stderr(
    work: Path, tidemill: Tidemill, arguments: tuple[str, ...]
) -> None:
    answer = tidemill(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Usage: tidemill" in answer.err


def test_a_misspelt_command_is_guessed(work: Path, tidemill: Tidemill) -> None:
    assert "Did you mean 'backtest'?" in tidemill("bakctest").err
    assert "There are: run, up, data" in tidemill("zzz").err


def test_errors_of_ours_are_a_sentence_and_with_debug_a_traceback(
    work: Path, tidemill: Tidemill, failing: list[BaseException]
) -> None:
    failing.append(InputError("That is wrong. Do it right."))
    assert tidemill("fail").error == "That is wrong. Do it right."
    for arguments in (("--debug", "fail"), ("fail", "--debug")):
        with pytest.raises(InputError):
            entry.main(arguments)


def test_a_defect_is_a_sentence_that_says_so(work: Path, tidemill: Tidemill, failing: list[BaseException]) -> None:
    failing.append(ZeroDivisionError("division\nby zero"))
    answer = tidemill("fail")
    assert answer.code == 1
    assert answer.err == "Error: ZeroDivisionError: division by zero. This is a defect of Tidemill; --debug shows where.\n"


def test_what_the_system_refuses_names_the_file(work: Path, tidemill: Tidemill, failing: list[BaseException]) -> None:
    failing.append(PermissionError(13, "Permission denied", "/some/file"))
    assert tidemill("fail").error.startswith("/some/file: Permission denied. Check")


def test_an_exit_of_some_other_code_is_no_success(work: Path, tidemill: Tidemill, failing: list[BaseException]) -> None:
    failing.append(SystemExit(3))
    assert tidemill("fail").code == 3


def test_an_interrupt_exits_with_130(work: Path, tidemill: Tidemill, failing: list[BaseException]) -> None:
    failing.append(KeyboardInterrupt())
    answer = tidemill("fail")
    assert answer.code == 130
    assert answer.err.strip() == "Stopped."


def test_a_reader_that_went_away_is_no_error(work: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1)  # as small as there is: the answer does not fit in
    call = [sys.executable, "-P", "-m", "tidemill.cli.main", "features", "list", "--json"]
    with subprocess.Popen(call, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        assert os.read(reader, 1) == b"["
        os.close(reader)
        _, error = process.communicate(timeout=60)
    assert error == b""
    assert process.returncode == 0


def test_debug_shows_the_traceback_in_a_process_of_its_own_and_nothing_less(work: Path) -> None:
    call = [sys.executable, "-P", "-m", "tidemill.cli.main", "performance", "metrics", "--input", "nowhere.csv"]
    plain = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    debug = subprocess.run([*call, "--debug"], capture_output=True, text=True, timeout=60, check=False)
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "nowhere.csv does not exist" in debug.stderr
