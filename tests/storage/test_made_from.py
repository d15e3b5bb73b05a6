"""Notes beside what people read: they know the bytes that were made, and an older kind of note is no damage."""

from pathlib import Path

import pytest

from tidemill.storage.made_from import harmed, is_made_from, write_note


@pytest.fixture
def note(tmp_path: Path) -> Path:
    (tmp_path / "report.html").write_text("<p>a report</p>")
    write_note(tmp_path / "made-from.txt", "inputs", tmp_path / "report.html")
    return tmp_path / "made-from.txt"


def test_what_lies_beside_a_note_is_what_was_made(note: Path) -> None:
    assert is_made_from(note, "inputs")
    assert not is_made_from(note, "other inputs")
    note.with_name("report.html").write_text("<p>another</p>")
    assert harmed(note) == ["report.html"]
    assert not is_made_from(note, "inputs")


def test_a_damaged_note_is_told(note: Path) -> None:
    note.write_bytes(note.read_bytes()[:-1])
    assert harmed(note) == [note.name]


def test_a_note_of_an_earlier_home_is_no_damage_and_the_report_is_made_again(note: Path) -> None:
    note.write_text("0123456789abcdef")
    assert harmed(note) == []
    assert not is_made_from(note, "0123456789abcdef")
