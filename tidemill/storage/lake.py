"""The analytics copy: hive-style folders of immutable Parquet files, and one manifest for each partition.

    <root>/<table>/dataset=<key>/partition=<name>/<content>.parquet
                                                  manifest.json     names the files that count
                                                  .lock             one writer at a time

A partition changes by one `os.replace` of its manifest, so a reader sees the old or the new, never a mix. Files that no longer
count stay for a minute: a reader that opened the old manifest finishes. What a killed writer left is removed by the next one.
"""

import os
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import filelock
import msgspec
import polars as pl

from tidemill.domain.errors import InputError, IntegrityError, UnavailableError, UnknownNameError
from tidemill.storage.content import content_version as content_version  # a part of the lake's interface
from tidemill.storage.ordered import by_symbol

_TABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}")
_MANIFEST = "manifest.json"
_TEMPORARY = ".tmp-"
_GRACE = 60.0
_LOCK_PATIENCE = 30.0
# Measured on 1 M bars: lz4 reads twice as fast as zstd and takes 1.5 times the space.
_COMPRESSION: Literal["lz4"] = "lz4"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition holds. start, end: first and last open_time; symbols: how many.

    data_version depends on the content alone, fingerprint is what the writer says it was made from. retired: files that no
    longer count, and since when (epoch seconds).
    """

    table: str
    dataset: str
    partition: str
    files: tuple[str, ...]
    rows: int
    bytes: int
    data_version: str
    fingerprint: str = ""
    start: datetime | None = None
    end: datetime | None = None
    symbols: int = 0
    metadata: dict[str, Any] = {}
    retired: dict[str, float] = {}


class Lake:
    """A folder of tables. Writers may be several processes; names that could leave the folder are an InputError."""

    def __init__(self, root: Path, *, grace: float = _GRACE) -> None:
        self.root = root
        self._grace = grace

    def write(
        self,
        table: str,
        dataset: str,
        partition: str,
        frame: pl.DataFrame,
        *,
        fingerprint: str = "",
        metadata: dict[str, Any] | None = None,
    ) -> Manifest:
        """Replace a partition by `frame` (sorted here by symbol and open_time where it has them).

        The same content keeps its file and its data_version. The last of several writers wins as a whole. UnavailableError when
        another process holds the partition for 30 s or the disk is full.
        """
        folder = self._partition(table, dataset, partition)
        rows = by_symbol(frame)
        version = content_version(rows)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / ".lock", timeout=_LOCK_PATIENCE):
                return self._replace(
                    folder, _describe(table, dataset, partition, rows, version, fingerprint, metadata or {}), rows
                )
        except filelock.Timeout as exc:
            raise UnavailableError(
                f"Another process is writing {table}/{dataset}/{partition}. Wait until it ends, then try again."
            ) from exc
        except OSError as exc:
            raise UnavailableError(
                f"The lake at {self.root} cannot be written: {exc.strerror or exc}. Free space or permit it."
            ) from exc

    def _replace(self, folder: Path, manifest: Manifest, rows: pl.DataFrame) -> Manifest:
        before = _read_manifest(folder)
        name = f"{manifest.data_version}.parquet"
        if before is None or name not in before.files or not (folder / name).is_file():
            _write_parquet(folder, name, rows)
        now = time.time()
        retired = {} if before is None else before.retired | dict.fromkeys(before.files, now)
        kept = {file: since for file, since in retired.items() if file != name and now - since < self._grace}
        complete = msgspec.structs.replace(manifest, files=(name,), bytes=(folder / name).stat().st_size, retired=kept)
        _write_atomically(folder / _MANIFEST, msgspec.json.format(msgspec.json.encode(complete), indent=1))
        _sweep(folder, {name, *kept})
        return complete

    def manifest(self, table: str, dataset: str, partition: str) -> Manifest | None:
        """What the partition holds now; None where there is none."""
        return _read_manifest(self._partition(table, dataset, partition))

    def manifests(self, table: str, dataset: str) -> dict[str, Manifest]:
        """Partition → manifest, by name."""
        found: dict[str, Manifest] = {}
        for folder in _children(self._dataset(table, dataset), "partition="):
            manifest = _read_manifest(folder)
            if manifest is not None:
                found[manifest.partition] = manifest
        return found

    def datasets(self, table: str) -> list[str]:
        """Datasets of a table that hold at least one partition, sorted."""
        folders = _children(self._table(table), "dataset=")
        names = [folder.name.removeprefix("dataset=") for folder in folders]
        return [name for name in names if self.manifests(table, name)]

    def tables(self) -> list[str]:
        """Tables, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if entry.is_dir() and _TABLE.fullmatch(entry.name))

    def scan(self, table: str, dataset: str, *, partitions: Iterable[str] | None = None) -> pl.LazyFrame:
        """All rows of the given partitions (default: all), partition after partition, each sorted by symbol and open_time.

        Collect it within a minute: the files it names stay that long after a change. UnknownNameError where there is nothing.
        """
        manifests = self.manifests(table, dataset)
        if not manifests:
            raise UnknownNameError(f"dataset of {table}", dataset, self.datasets(table))
        wanted = list(manifests) if partitions is None else list(partitions)
        for name in wanted:
            if name not in manifests:
                raise UnknownNameError(f"partition of {table}/{dataset}", name, manifests)
        files = self._files(manifests[name] for name in wanted)
        if not files:
            return self.scan(table, dataset, partitions=[next(iter(manifests))]).head(0)
        return pl.scan_parquet(files, hive_partitioning=False, glob=False)

    def scan_partition(self, manifest: Manifest) -> pl.LazyFrame:
        """All rows of one partition, as its manifest has it: many partitions are then found by one look at each."""
        return pl.scan_parquet(self._files([manifest]), hive_partitioning=False, glob=False)

    def _files(self, manifests: Iterable[Manifest]) -> list[Path]:
        """Their files. IntegrityError where one is gone or cut off: it is said here, since a scan would fail much later."""
        found = []
        for manifest in manifests:
            folder = self._partition(manifest.table, manifest.dataset, manifest.partition)
            found += [folder / file for file in manifest.files]
            size = sum(_size(folder / file) for file in manifest.files)
            if size != manifest.bytes:
                raise IntegrityError(f"The lake's {folder} is damaged. Mend it with `tidemill data repair`.")
        return found

    def sql(self, query: str) -> pl.DataFrame:
        """The answer of duckdb to one SELECT; every table is a view with the columns `dataset` and `partition` added.

        The query sees the lake's files and nothing else of the host, and can change nothing. InputError for anything else.
        """
        from tidemill.storage.lake_sql import query_lake

        views = {table: self._files(self._manifests_of(table)) for table in self.tables()}
        return query_lake(query, {table: files for table, files in views.items() if files})

    def _manifests_of(self, table: str) -> list[Manifest]:
        return [manifest for dataset in self.datasets(table) for manifest in self.manifests(table, dataset).values()]

    def drop(self, table: str, dataset: str, partition: str | None = None) -> None:
        """Remove a partition, or a whole dataset of a table. Nothing there is no error."""
        for name in self.manifests(table, dataset) if partition is None else (partition,):
            folder = self._partition(table, dataset, name)
            if folder.is_dir():
                # The folder and its lock stay: another writer may be waiting for it.
                with filelock.FileLock(folder / ".lock", timeout=_LOCK_PATIENCE):
                    (folder / _MANIFEST).unlink(missing_ok=True)
                    _sweep(folder, set())

    def _table(self, table: str) -> Path:
        if _TABLE.fullmatch(table) is None:
            raise InputError(f"{table[:40]!r} is not the name of a table. Use small letters, digits and _.")
        return self.root / table

    def _dataset(self, table: str, dataset: str) -> Path:
        return self._table(table) / f"dataset={_name(dataset)}"

    def _partition(self, table: str, dataset: str, partition: str) -> Path:
        return self._dataset(table, dataset) / f"partition={_name(partition)}"


def _size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None or ".." in text:
        raise InputError(
            f"{text[:40]!r} cannot be a name in the lake. Use letters, digits and . _ - + =, starting with a letter or digit."
        )
    return text


def _children(folder: Path, prefix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.name.startswith(prefix))


def _describe(
    table: str, dataset: str, partition: str, rows: pl.DataFrame, version: str, fingerprint: str, metadata: dict[str, Any]
) -> Manifest:
    times: Sequence[Any] = (None, None)
    if "open_time" in rows.columns and rows.height:
        times = (rows["open_time"].min(), rows["open_time"].max())
    return Manifest(
        table=table,
        dataset=dataset,
        partition=partition,
        files=(),
        rows=rows.height,
        bytes=0,
        data_version=version,
        fingerprint=fingerprint,
        start=times[0],
        end=times[1],
        symbols=rows["symbol"].n_unique() if "symbol" in rows.columns else 0,
        metadata=metadata,
    )


def _read_manifest(folder: Path) -> Manifest | None:
    path = f"{folder}/{_MANIFEST}"
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return None
    # A manifest is replaced by another file, never written to: the same file says what it said.
    return _parsed(path, state.st_ino, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=20_000)
def _parsed(path: str, inode: int, modified: int, size: int) -> Manifest | None:
    """The manifest of one state of a file: steps look at every partition many times, and to read it costs ten times a look."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None  # dropped between two looks
    except msgspec.DecodeError as exc:
        raise IntegrityError(f"{path} is damaged. Mend it with `tidemill data repair`.") from exc


def _write_parquet(folder: Path, name: str, rows: pl.DataFrame) -> None:
    temporary = folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
    rows.write_parquet(temporary, compression=_COMPRESSION, statistics=True)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / name)


def _write_atomically(path: Path, content: bytes) -> None:
    """The file holds the old or the new content after a crash at any moment."""
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path, wanted: set[str]) -> None:
    """Remove what no manifest needs. Only the holder of the lock writes here, so a temporary file is one of a dead writer."""
    for entry in folder.iterdir():
        if entry.name.startswith(_TEMPORARY) or (entry.suffix == ".parquet" and entry.name not in wanted):
            entry.unlink(missing_ok=True)
