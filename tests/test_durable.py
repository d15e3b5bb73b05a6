"""A file is written whole or not at all, what the dead left is told from what the living write, a seal shows every change."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidemill import durable
from tidemill.domain.errors import IntegrityError
from tidemill.durable import TEMPORARY, make_folder, read_sealed, replacing, replacing_folder, sweep, write_file, write_sealed

# A writer that stops for ever in the middle of what its argument says.
STUCK = """
import signal, sys
from pathlib import Path
from tidemill.durable import replacing, replacing_folder
way = {"file": replacing, "folder": replacing_folder}[sys.argv[1]]
with way(Path(sys.argv[2])) as temporary:
    (temporary / "part" if temporary.is_dir() else temporary).write_bytes(b"half")
    print("stuck", flush=True)
    signal.pause()
"""


@contextmanager
def stuck(kind: str, path: Path) -> Iterator[Callable[[], None]]:
    """A process that writes `path` and does not come to an end; the function kills it."""
    with subprocess.Popen([sys.executable, "-c", STUCK, kind, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "stuck\n"

        def kill() -> None:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()

        try:
            yield kill
        finally:
            writer.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_block_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    def fails() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_bytes(b"new")
            raise ZeroDivisionError

    write_file(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError):
        fails()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_file_and_folder_are_flushed_before_the_name_counts_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, real = [], os.fsync

    def note(descriptor: int) -> None:
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), (tmp_path / "a").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_file(tmp_path / "a", b"new")
    (file, before), (folder, after) = flushed
    assert Path(file).name.startswith(TEMPORARY)
    assert (before, after) == (False, True)
    assert folder == str(tmp_path)


def test_folders_are_flushed_into_those_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    make_folder(tmp_path / "a" / "b")
    assert flushed == [str(tmp_path), str(tmp_path / "a")]


def test_permissions_are_those_asked_for(tmp_path: Path) -> None:
    write_file(tmp_path / "secret", b"", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_sweep_takes_what_a_dead_writer_left_and_not_what_a_living_one_writes(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"old")
    with stuck("file", tmp_path / "a") as kill:
        sweep(tmp_path)
        assert len(names(tmp_path)) == 2
        kill()
    sweep(tmp_path)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_sweeps_beside_writers_take_nothing_of_theirs(tmp_path: Path) -> None:
    done = threading.Event()

    def sweeping() -> None:
        while not done.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=sweeping)
    sweeper.start()
    try:
        for number in range(300):
            write_file(tmp_path / "a", str(number).encode())
            assert (tmp_path / "a").read_bytes() == str(number).encode()
    finally:
        done.set()
        sweeper.join()
    assert names(tmp_path) == ["a"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        with replacing_folder(tmp_path / "model") as made:
            (made / content.decode()).write_bytes(content)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["two"]


def test_half_a_folder_of_a_dead_writer_goes(tmp_path: Path) -> None:
    with stuck("folder", tmp_path / "model") as kill:
        sweep(tmp_path)
        assert len(names(tmp_path)) == 1
        kill()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_that_a_dead_writer_moved_aside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replacing_folder(tmp_path / "model") as made:
        (made / "old").write_bytes(b"")

    class Killed(BaseException):
        pass

    renamed, real = [], Path.rename

    def die_at_the_second(path: Path, target: Path) -> Path:
        renamed.append(path)
        if len(renamed) == 2:
            raise Killed
        return real(path, target)

    monkeypatch.setattr(Path, "rename", die_at_the_second)
    monkeypatch.setattr(durable, "_remove_folder", lambda _: None)  # whoever is dead tidies nothing up
    with pytest.raises(Killed), replacing_folder(tmp_path / "model") as made:
        (made / "new").write_bytes(b"")
    monkeypatch.undo()
    assert "model" not in names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old"]


def test_every_flipped_bit_every_cut_and_every_byte_more_breaks_a_seal_or_is_no_content(tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", b'{"a": 1}'
    write_sealed(path, content)
    whole = path.read_bytes()
    assert read_sealed(path) == content
    random_ = random.Random(3)
    changed = [flipped(whole, bit) for bit in range(8 * len(whole))]
    changed += [whole[:size] for size in range(len(whole))] + [whole + bytes([random_.randrange(256)]) for _ in range(20)]
    refused = 0
    for data in changed:
        path.write_bytes(data)
        try:
            found = read_sealed(path)
        except IntegrityError:
            refused += 1
        else:  # the first line was hit: a reader gets a broken line before the content, or nothing
            assert found == data
            assert found != content
    assert refused > len(changed) / 2


def test_a_broken_seal_names_the_file_and_the_command_that_mends(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", b"{}")
    (tmp_path / "a.json").write_bytes((tmp_path / "a.json").read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"a\.json is damaged\. Mend it with `tidemill data repair`\.$"):
        read_sealed(tmp_path / "a.json")


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_file_of_before_the_seal_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": 1}')
    assert read_sealed(tmp_path / "a.json") == b'{"a": 1}'
