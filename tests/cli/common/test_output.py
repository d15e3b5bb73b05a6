"""Tables, JSON and the line of progress."""

import io
import json
import sys
import threading

import pytest

from tidemill.cli.common import progress as progress_module
from tidemill.cli.common.output import counted, number, price, write_json, write_table
from tidemill.cli.common.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_numbers_stand_to_the_right_and_texts_to_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    write_table("title", ("name", "value"), [("a", 1.5), ("bcd", 1_234.0), ("e", None)])
    assert capsys.readouterr().out.splitlines() == [
        "title",
        "name     value",
        "────  ────────",
        "a         1.50",
        "bcd   1,234.00",
        "e            –",
    ]


def test_figures_that_are_written_out_stand_to_the_right_too(capsys: pytest.CaptureFixture[str]) -> None:
    write_table("", ("engine", "return"), [("a", "−2.3 %"), ("b", "11.3 %"), ("c", "–")])
    assert [line[-6:] for line in capsys.readouterr().out.splitlines()[2:]] == ["−2.3 %", "11.3 %", "     –"]


def test_a_table_without_rows_has_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    write_table("", ("name", "value"), [])
    assert capsys.readouterr().out.splitlines() == ["name  value", "────  ─────"]


def test_a_long_text_is_wrapped_on_a_terminal_and_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(["word"] * 30)
    for stream, lines in ((Terminal(), 2), (io.StringIO(), 1)):
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "stdout", stream)
        write_table("", ("name", "about"), [("a", text)])
        written = stream.getvalue().splitlines()
        assert len(written) == 2 + lines
        assert " ".join(" ".join(line.split()) for line in written[2:]).removeprefix("a ") == text
        assert lines == 1 or max(map(len, written)) <= 100


def test_json_is_valid_whatever_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"a": float("nan"), "b": [float("inf"), -1.5], "c": None, 4: "d"})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, -1.5], "c": None, "4": "d"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00001234, "0.00001234"), (438.0, "438"), (19_267_300.0, "19,267,300"), (0.1 + 0.2, "0.3"), (0.0, "0")],
)
def test_a_price_has_the_digits_that_matter(value: float, text: str) -> None:
    assert price(value) == text


def test_numbers_and_counts_are_written_for_people() -> None:
    assert (number(None), number(float("nan")), number(1234), number("x")) == ("–", "–", "1,234", "x")
    assert (counted(1, "bar"), counted(0, "bar"), counted(1_200, "bar")) == ("1 bar", "0 bars", "1,200 bars")


def test_progress_is_shown_on_a_terminal_once_it_takes_longer_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = threading.Event()

    class Watched(Terminal):
        def flush(self) -> None:
            if "5 rows" in self.getvalue():
                shown.set()

    terminal = Watched()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress_module, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress_module, "_BEAT", 0.001)
    with progress("Importing x.csv") as say:
        say("5 rows")
        assert shown.wait(10.0)
    assert "Importing x.csv, 5 rows … 0 s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_of_something_quick_and_in_a_pipe_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("Importing") as say:
            say("5 rows")
        assert stream.getvalue() == ""
