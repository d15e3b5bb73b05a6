"""Partitions change at once or not at all; names stay inside the folder; a query sees the lake and nothing else."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tidemill.domain.errors import InputError, IntegrityError, UnavailableError, UnknownNameError
from tidemill.durable import read_sealed
from tidemill.storage import lake as module
from tidemill.storage import verified
from tidemill.storage.lake import Lake, Manifest
from tidemill.storage.lake_check import damaged

START = datetime(2024, 1, 1, tzinfo=UTC)


def frame(rows: int = 4, value: float = 1.0, symbols: tuple[str, ...] = ("A", "B")) -> pl.DataFrame:
    times = [START + timedelta(hours=hour) for hour in range(rows)]
    schema = {"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "x": pl.Float64}
    return pl.DataFrame([(symbol, time, value) for symbol in symbols for time in times], schema=schema, orient="row")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def parquet_files(lake: Lake) -> list[Path]:
    return sorted(lake.root.rglob("*.parquet"))


def test_a_partition_is_read_back_with_what_its_manifest_says(lake: Lake) -> None:
    written = lake.write("bars", "v.1h", "2024-01", frame(), fingerprint="f", metadata={"note": [1, 2]})
    assert (written.rows, written.symbols, written.start, written.end) == (8, 2, START, START + timedelta(hours=3))
    assert written.bytes == parquet_files(lake)[0].stat().st_size
    assert lake.manifest("bars", "v.1h", "2024-01") == written
    assert lake.manifests("bars", "v.1h") == {"2024-01": written}
    assert (written.fingerprint, written.metadata) == ("f", {"note": [1, 2]})
    assert lake.scan("bars", "v.1h").collect().equals(frame())
    assert parquet_files(lake)[0].relative_to(lake.root).parts[:3] == ("bars", "dataset=v.1h", "partition=2024-01")


def test_rows_are_sorted_by_symbol_and_time(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame().reverse())
    assert lake.scan("bars", "v.1h").collect().equals(frame())


def test_the_same_content_keeps_its_version_and_its_file(lake: Lake) -> None:
    first = lake.write("bars", "v.1h", "2024-01", frame(), fingerprint="one")
    stamp = parquet_files(lake)[0].stat().st_mtime_ns
    second = lake.write("bars", "v.1h", "2024-01", frame().reverse(), fingerprint="two")
    assert (second.data_version, second.files, second.fingerprint) == (first.data_version, first.files, "two")
    assert parquet_files(lake)[0].stat().st_mtime_ns == stamp
    assert lake.write("bars", "v.1h", "2024-01", frame(value=2.0)).data_version != first.data_version


def test_partitions_can_be_chosen_and_are_read_in_the_order_of_their_names(lake: Lake) -> None:
    for number, month in enumerate(("2024-03", "2024-01", "2024-02")):
        lake.write("bars", "v.1h", month, frame(1, float(number), ("A",)))
    assert lake.scan("bars", "v.1h").collect()["x"].to_list() == [1.0, 2.0, 0.0]
    assert lake.scan("bars", "v.1h", partitions=["2024-03"]).collect()["x"].to_list() == [0.0]
    assert lake.scan("bars", "v.1h", partitions=[]).collect().equals(frame(0))


def test_what_is_not_there_is_named_with_the_choices(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame())
    with pytest.raises(UnknownNameError, match=r"v\.1h"):
        lake.scan("bars", "other")
    with pytest.raises(UnknownNameError, match="2024-01"):
        lake.scan("bars", "v.1h", partitions=["2024-02"])
    assert lake.manifest("bars", "v.1h", "2024-02") is None
    assert lake.manifests("bars", "other") == {}


def test_a_frame_without_rows_is_a_partition_too(lake: Lake) -> None:
    written = lake.write("imports", "v.1h", "s-1", frame(0), fingerprint="f", metadata={"rows": 0})
    assert (written.rows, written.start, written.symbols) == (0, None, 0)
    assert lake.scan("imports", "v.1h").collect().equals(frame(0))


def test_dropping_removes_one_partition_or_all(lake: Lake) -> None:
    for month in ("2024-01", "2024-02"):
        lake.write("bars", "v.1h", month, frame())
    lake.drop("bars", "v.1h", "2024-01")
    assert list(lake.manifests("bars", "v.1h")) == ["2024-02"]
    lake.drop("bars", "v.1h", "2024-01")
    lake.drop("bars", "v.1h")
    assert lake.datasets("bars") == []
    assert parquet_files(lake) == []


def test_a_reader_that_began_before_a_change_finishes_with_the_old_rows(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame(value=1.0))
    begun = lake.scan("bars", "v.1h")
    for value in (2.0, 3.0):
        lake.write("bars", "v.1h", "2024-01", frame(value=value))
    assert begun.collect().equals(frame(value=1.0))
    assert lake.scan("bars", "v.1h").collect().equals(frame(value=3.0))


def test_files_that_no_longer_count_go_after_the_grace(tmp_path: Path) -> None:
    lake = Lake(tmp_path, grace=0.0)
    for value in (1.0, 2.0, 3.0):
        lake.write("bars", "v.1h", "2024-01", frame(value=value))
    assert [path.name for path in parquet_files(lake)] == list(lake.manifests("bars", "v.1h")["2024-01"].files)


def test_content_that_comes_back_counts_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for value in (1.0, 2.0, 1.0):
        last = lake.write("bars", "v.1h", "2024-01", frame(value=value))
    assert last.files[0] not in last.retired
    lake.write("bars", "v.1h", "2024-01", frame(value=1.0))
    assert lake.scan("bars", "v.1h").collect().equals(frame(value=1.0))


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "..", "a..b", "\x00", "/etc", "a\nb", "x" * 300, ".hidden"])
def test_names_that_could_leave_the_folder_are_refused(lake: Lake, name: str) -> None:
    for arguments in ((name, "v.1h", "2024-01"), ("bars", name, "2024-01"), ("bars", "v.1h", name)):
        with pytest.raises(InputError):
            lake.write(*arguments, frame())
        with pytest.raises(InputError):
            lake.manifest(*arguments)
        with pytest.raises(InputError):
            lake.drop(*arguments)
    assert not lake.root.exists()


def test_a_damaged_manifest_is_an_integrity_error(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame())
    next(lake.root.rglob("manifest.json")).write_text('{"table": "bars"')
    with pytest.raises(IntegrityError, match=r"manifest\.json is damaged"):
        lake.scan("bars", "v.1h")


def spoil(path: Path, content: bytes | None) -> None:
    """Other content in a file, at another time whatever the clock of the file system says; None: the file is gone."""
    if content is None:
        path.unlink()
        return
    at = path.stat().st_mtime_ns if path.exists() else time.time_ns()
    path.write_bytes(content)
    os.utime(path, ns=(at + 1, at + 1))


def spoiled(whole: bytes, flips: int) -> Iterator[bytes | None]:
    """The file gone, emptied, cut off, and with single bits flipped."""
    chance = random.Random(7)
    yield from (None, b"", whole[:-1], whole[: len(whole) // 2], whole + b"x", bytes(len(whole)))
    for bit in chance.sample(range(8 * len(whole)), flips):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_no_damage_of_a_file_goes_unseen(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame(200))
    (path,) = parquet_files(lake)
    whole = path.read_bytes()
    for content in spoiled(whole, 300):
        spoil(path, content)
        with pytest.raises(IntegrityError, match=r"partition=2024-01 is damaged\. Mend it with `tidemill data repair`\.$"):
            lake.scan("bars", "v.1h").collect()
    spoil(path, whole)
    assert lake.scan("bars", "v.1h").collect().equals(frame(200))


def test_no_damage_of_a_manifest_gives_other_content(lake: Lake) -> None:
    """Without its manifest a partition is not there: whoever needs it says so."""
    written = lake.write("bars", "v.1h", "2024-01", frame(), fingerprint="f", metadata={"known": 0.25})
    path = next(lake.root.rglob("manifest.json"))
    for content in spoiled(path.read_bytes(), 300):
        spoil(path, content)
        if content is None:
            assert lake.manifest("bars", "v.1h", "2024-01") is None
        else:
            with pytest.raises(IntegrityError, match="data repair"):
                lake.manifest("bars", "v.1h", "2024-01")
    lake.drop("bars", "v.1h")
    assert lake.write("bars", "v.1h", "2024-01", frame(), fingerprint="f", metadata={"known": 0.25}).rows == written.rows


def test_a_query_answers_from_whole_files_alone_and_minds_those_that_it_names(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame(200))
    lake.write("flags", "v.1h", "2024-01", frame(3))
    path = next(path for path in parquet_files(lake) if "bars" in path.parts)
    for content in spoiled(path.read_bytes(), 40):
        spoil(path, content)
        with pytest.raises(IntegrityError, match="data repair"):
            lake.sql("SELECT sum(x) FROM BARS")
        assert lake.sql("SELECT sum(x) FROM flags").item() == 6.0


def test_the_same_content_written_again_takes_the_place_of_a_damaged_file(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame(200))
    (path,) = parquet_files(lake)
    whole = path.read_bytes()
    for content in spoiled(whole, 20):
        spoil(path, content)
        lake.write("bars", "v.1h", "2024-01", frame(200))
        assert lake.scan("bars", "v.1h").collect().equals(frame(200))


def test_a_file_is_read_through_once_and_again_when_it_has_changed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for month in ("2024-01", "2024-02", "2024-03", "2024-04", "2024-05"):
        lake.write("bars", "v.1h", month, frame(value=float(month[-1])))
    read: list[Path] = []
    real = verified.checksum
    monkeypatch.setattr(verified, "checksum", lambda path: [read.append(path), real(path)][1])
    lake.scan("bars", "v.1h")
    assert read == [], "this process wrote them"
    files = parquet_files(lake)
    for file in files:
        spoil(file, file.read_bytes())
    for _ in range(3):
        lake.scan("bars", "v.1h")
    assert sorted(read) == files
    spoil(files[2], files[2].read_bytes())
    lake.scan_partition(lake.manifests("bars", "v.1h")["2024-03"])
    assert read[5:] == [next(file for file in files if "partition=2024-03" in file.parts)] == [files[2]]


def as_before_checksums(lake: Lake) -> None:
    """Manifests as versions before checksums wrote them."""
    for path in lake.root.rglob("manifest.json"):
        content = msgspec.json.decode(read_sealed(path))
        del content["checksums"]
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))


def test_what_was_written_before_checksums_is_read_and_its_damage_is_seen(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.write("bars", "v.1h", "2024-01", frame(200))
    as_before_checksums(lake)
    assert lake.manifests("bars", "v.1h")["2024-01"].checksums == {}
    assert lake.scan("bars", "v.1h").collect().equals(frame(200))
    (path,) = parquet_files(lake)
    whole, seen = path.read_bytes(), 0
    for content in spoiled(whole, 100):
        spoil(path, content)
        try:
            found = lake.scan("bars", "v.1h").collect()
        except IntegrityError:
            seen += 1
        else:
            assert found.equals(frame(200)), "a bit that means nothing, as in statistics"
    assert seen > 50


def test_what_was_written_before_checksums_gets_them_when_it_is_looked_over(lake: Lake) -> None:
    written = lake.write("bars", "v.1h", "2024-01", frame(200))
    as_before_checksums(lake)
    assert damaged(lake) == (1, [])
    assert lake.manifest("bars", "v.1h", "2024-01") == written
    assert next(lake.root.rglob("manifest.json")).read_bytes().startswith(b'{"sha256":"')


def test_a_damaged_partition_can_be_dropped_with_its_dataset(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame())
    next(lake.root.rglob("manifest.json")).write_text("{")
    lake.drop("bars", "v.1h")
    assert lake.datasets("bars") == []


def test_readers_beside_writers_see_one_whole_version_each_time(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame(500, 0.0))
    failures: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = lake.scan("bars", "v.1h").collect()
            if found.height != 1_000 or found["x"].n_unique() != 1:
                failures.append(found)

    def write(offset: int) -> None:
        for number in range(10):
            lake.write("bars", "v.1h", "2024-01", frame(500, float(offset + number)))

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(offset,)) for offset in (100, 200, 300)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert failures == []
    assert lake.scan("bars", "v.1h").collect()["x"][0] in (109.0, 209.0, 309.0)


# A writer that stops for ever just before its manifest counts.
STUCK = """
import signal, sys
from pathlib import Path
from tests.storage.test_lake import frame
from tidemill.storage import lake

def stop(path, content):
    path.with_name(".tmp-half").write_bytes(content[:10])
    print("stuck", flush=True)
    signal.pause()

lake.write_sealed = stop
lake.Lake(Path(sys.argv[1])).write("bars", "v.1h", "2024-01", frame(value=2.0))
"""


def test_a_writer_killed_before_its_manifest_counts_leaves_the_old_version_and_no_litter(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame(value=1.0))
    with subprocess.Popen([sys.executable, "-c", STUCK, str(lake.root)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "stuck\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert lake.scan("bars", "v.1h").collect().equals(frame(value=1.0))
    assert len(parquet_files(lake)) == 2
    lake.write("bars", "v.1h", "2024-01", frame(value=3.0))
    assert lake.scan("bars", "v.1h").collect().equals(frame(value=3.0))
    assert len(parquet_files(lake)) == 2, "the current file and the one before it"
    assert list(lake.root.rglob(".tmp-*")) == []


WAYS_TO_WRITE: dict[str, Callable[[Lake, Manifest], object]] = {
    "write": lambda lake, held: lake.write("bars", "v.1h", "2024-01", frame(value=2.0)),
    "seal": lambda lake, held: lake.seal(held),
    "annotate": lambda lake, held: lake.annotate(held, {"seen": "x"}),
    "drop": lambda lake, held: lake.drop("bars", "v.1h"),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_a_partition_that_another_process_holds_is_unavailable(lake: Lake, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    import filelock

    held = lake.write("bars", "v.1h", "2024-01", frame())
    monkeypatch.setattr(module, "_LOCK_PATIENCE", 0.05)
    lock = next(lake.root.rglob(".lock"))
    with filelock.FileLock(lock), pytest.raises(UnavailableError, match=r"Another process is writing bars/v\.1h/2024-01\."):
        WAYS_TO_WRITE[way](Lake(lake.root), held)


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_a_folder_that_cannot_be_written_is_a_clear_error(lake: Lake, way: str) -> None:
    held = lake.write("bars", "v.1h", "2024-01", frame())
    lock = next(lake.root.rglob(".lock"))
    lock.unlink()
    lock.mkdir()
    with pytest.raises(UnavailableError, match="cannot be written"):
        WAYS_TO_WRITE[way](lake, held)


def test_a_lake_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot be written"):
        Lake(tmp_path / "file").write("bars", "v.1h", "2024-01", frame())


def test_a_query_sees_all_tables_with_dataset_and_partition(lake: Lake) -> None:
    lake.write("bars", "v.1h", "2024-01", frame(2, 1.0))
    lake.write("bars", "w.1d", "2024-02", frame(1, 5.0).with_columns(extra=pl.lit("x")))
    lake.write("flags", "v.1h", "all", frame(1))
    answer = lake.sql("SELECT dataset, partition, count(*) AS n, sum(x) AS x FROM bars GROUP BY ALL ORDER BY 1")
    assert answer.rows() == [("v.1h", "2024-01", 4, 4.0), ("w.1d", "2024-02", 2, 10.0)]
    joined = lake.sql("WITH f AS (SELECT symbol FROM flags) SELECT count(*) FROM bars SEMI JOIN f USING (symbol)")
    assert joined.item() == 6


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT content FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO 'out.csv'",
        "COPY bars TO 'out.parquet'",
        "EXPORT DATABASE 'out'",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT 1; SELECT 2",
        "CREATE TABLE t (a int)",
        "DROP VIEW bars",
        "PRAGMA database_list",
        "",
        "SELEC 1",
        "SELECT * FROM nothing",
    ],
)
def test_a_query_reaches_nothing_but_the_lake_and_changes_nothing(
    lake: Lake, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lake.write("bars", "v.1h", "2024-01", frame())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        lake.sql(query)
    assert sorted(tmp_path.rglob("*")) == before
