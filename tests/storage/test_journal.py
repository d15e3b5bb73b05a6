"""The journal of a search gives back what was told, or says that it is damaged; half a line costs that line."""

import json
import random
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tidemill.domain.errors import IntegrityError
from tidemill.storage.journal import Journal, cut, damage


def told(path: Path, trials: int = 0, *, checked: bool = True) -> list[float | None]:
    """Values of all trials in the journal, after some more."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = Journal(path) if checked else JournalFileBackend(str(path))
    study = optuna.create_study(storage=JournalStorage(backend), study_name="s", load_if_exists=True)
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0.0, 1.0))
    return [trial.value for trial in study.trials]


def test_trials_are_found_again(tmp_path: Path) -> None:
    first = told(tmp_path / "j", 3)
    assert told(tmp_path / "j", 2)[:3] == first
    assert len(told(tmp_path / "j")) == 5


def test_no_flipped_bit_gives_another_value(tmp_path: Path) -> None:
    path = tmp_path / "j"
    right = told(path, 3)
    whole, chance, refused = path.read_bytes(), random.Random(2), 0
    for bit in chance.sample(range(8 * len(whole)), 150):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            found = told(path)
        except IntegrityError as exc:
            refused += "data repair" in str(exc) and damage(path) > 0
        else:  # the last line break or the name of the checksum was hit: what has no end was never written
            assert found == right[: len(found)]
    assert refused > 140


def test_what_comes_after_the_first_damaged_line_is_cut_off_and_the_search_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    right = told(path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:8], lines[8].replace(b"{", b"[", 1), *lines[9:]]))
    with pytest.raises(IntegrityError):
        told(path)
    cut(path)
    assert damage(path) == 0
    found = told(path, 2)
    assert found[0] == right[0]
    assert len(found) >= 3


def test_half_a_line_of_a_dead_writer_goes_when_the_journal_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "j"
    right = told(path, 3)
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert told(path, 1)[:3] == right
    assert len(told(path)) == 4


def test_a_journal_of_before_checksums_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j"
    right = told(path, 3, checked=False)
    assert damage(path) == 0
    assert told(path, 1)[:3] == right
    assert "sum" in json.loads(path.read_bytes().splitlines()[-1])
