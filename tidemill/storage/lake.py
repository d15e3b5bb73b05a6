"""The analytics copy: hive-style folders of immutable Parquet files, and one manifest for each partition.

    <root>/<table>/dataset=<key>/partition=<name>/<content>.parquet
                                                  manifest.json     names the files that count
                                                  .lock             one writer at a time

A partition changes by one rename of its manifest, so a reader sees the old or the new, never a mix. Files that no longer
count stay for a minute: a reader that opened the old manifest finishes. What a killed writer left is removed by the next one.

A manifest is sealed and holds the checksums of its files; each file is read through once before its rows are (see `verified`).
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import filelock
import msgspec
import polars as pl

from tidemill.domain.errors import InputError, UnavailableError, UnknownNameError
from tidemill.durable import TEMPORARY, checksum, damaged, make_folder, read_sealed, replacing, write_sealed
from tidemill.storage import verified
from tidemill.storage.content import content_version as content_version  # a part of the lake's interface
from tidemill.storage.ordered import by_symbol

_TABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}")
_MANIFEST = "manifest.json"
_LOCK = ".lock"
_GRACE = 60.0
_LOCK_PATIENCE = 30.0
# Measured on 1 M bars: lz4 reads twice as fast as zstd and takes 1.5 times the space.
_COMPRESSION: Literal["lz4"] = "lz4"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition holds. start, end: first and last open_time; symbols: how many.

    data_version depends on the content alone, fingerprint is what the writer says it was made from. retired: files that no
    longer count, and since when (epoch seconds). checksums: file → SHA-256 of its bytes; none in a manifest of a version that
    did not know them, whose files are held against data_version.
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
    checksums: dict[str, str] = {}


class Footprint(NamedTuple):
    """A dataset of a table by what lies in its folders. changed_at: of its newest file, epoch seconds."""

    dataset: str
    bytes: int
    changed_at: float


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
        described = _describe(table, dataset, partition, rows, version, fingerprint, metadata or {})
        with self._writing(folder):
            return self._replace(folder, described, rows)

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        """The folder of a partition, which no other process writes meanwhile. UnavailableError as `write` says."""
        try:
            make_folder(folder)
            with filelock.FileLock(folder / _LOCK, timeout=_LOCK_PATIENCE):
                yield
        except filelock.Timeout as exc:
            part = "/".join(name.split("=", 1)[-1] for name in folder.relative_to(self.root).parts)
            raise UnavailableError(f"Another process is writing {part}. Wait until it ends, then try again.") from exc
        except OSError as exc:
            raise UnavailableError(
                f"The lake at {self.root} cannot be written: {exc.strerror or exc}. Free some space or change its permissions."
            ) from exc

    def _replace(self, folder: Path, manifest: Manifest, rows: pl.DataFrame) -> Manifest:
        before = _read_manifest(folder)
        name = f"{manifest.data_version}.parquet"
        sum_ = _kept(folder, name, before) or _write_parquet(folder / name, rows)
        now = time.time()
        retired = {} if before is None else before.retired | dict.fromkeys(before.files, now)
        kept = {file: since for file, since in retired.items() if file != name and now - since < self._grace}
        size = (folder / name).stat().st_size
        complete = msgspec.structs.replace(manifest, files=(name,), bytes=size, retired=kept, checksums={name: sum_})
        _write_manifest(folder, complete)
        _sweep(folder, {name, *kept})
        return complete

    def seal(self, manifest: Manifest) -> None:
        """Give a partition of an earlier version its checksums. Its files were found whole; one that changed since is left.

        Errors as of `write`, here and in whatever else writes.
        """
        folder = self._partition(manifest.table, manifest.dataset, manifest.partition)
        with self._writing(folder):
            if _read_manifest(folder) == manifest:
                sums = {name: checksum(folder / name) for name in manifest.files}
                _write_manifest(folder, msgspec.structs.replace(manifest, checksums=sums))

    def annotate(self, manifest: Manifest, metadata: dict[str, Any]) -> None:
        """Other metadata for a partition whose rows stay as they are; one that changed since is left."""
        folder = self._partition(manifest.table, manifest.dataset, manifest.partition)
        with self._writing(folder):
            if _read_manifest(folder) == manifest:
                _write_manifest(folder, msgspec.structs.replace(manifest, metadata=metadata))

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

    def holds(self, table: str, dataset: str) -> bool:
        """Whether there is some partition, without a look at the others."""
        return any(_read_manifest(folder) for folder in _children(self._dataset(table, dataset), "partition="))

    def datasets(self, table: str) -> list[str]:
        """Datasets of a table that hold at least one partition, sorted."""
        folders = _children(self._table(table), "dataset=")
        names = [os.path.basename(folder).removeprefix("dataset=") for folder in folders]
        return [name for name in names if self.manifests(table, name)]

    def footprints(self, table: str) -> list[Footprint]:
        """Datasets of a table, by name; also what no manifest names any more, since a writer died."""
        found = []
        for folder in map(Path, _children(self._table(table), "dataset=")):
            sizes = [path.stat() for path in folder.glob("partition=*/*") if path.name != _LOCK]
            if sizes:
                newest = max(one.st_mtime for one in sizes)
                found.append(Footprint(folder.name.removeprefix("dataset="), sum(one.st_size for one in sizes), newest))
        return found

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
        """Their files, each read through once. IntegrityError where one is gone, cut off or other than it was written."""
        found = [file for manifest in manifests for file in self.stored(manifest)]
        _require_whole(found)
        return [file.path for file in found]

    def stored(self, manifest: Manifest) -> list[verified.Stored]:
        """What should lie in the folder of a partition. `bytes` is of all files together: one each is all that is written."""
        folder, sizes = self._partition(manifest.table, manifest.dataset, manifest.partition), manifest.bytes
        return [
            verified.Stored(folder / name, sizes, manifest.checksums.get(name, ""), manifest.data_version)
            for name in manifest.files
        ]

    def sql(self, query: str) -> pl.DataFrame:
        """The answer of duckdb to one SELECT; every table is a view with the columns `dataset` and `partition` added.

        The query sees the lake's files and nothing else of the host, and can change nothing. InputError for anything else.
        """
        from tidemill.storage.lake_sql import query_lake

        stored = {table: self._stored_in(table) for table in self.tables()}
        # Only what the query names is read through: the lake may be much larger. No other view can then be read.
        named = [file for table, files in stored.items() if table in query.lower() for file in files]
        _require_whole(named)
        views = {table: [file.path for file in files] for table, files in stored.items() if files}
        return query_lake(query, views, [file.path for file in named])

    def _stored_in(self, table: str) -> list[verified.Stored]:
        return [file for manifest in self._manifests_of(table) for file in self.stored(manifest)]

    def _manifests_of(self, table: str) -> list[Manifest]:
        return [manifest for dataset in self.datasets(table) for manifest in self.manifests(table, dataset).values()]

    def drop(self, table: str, dataset: str, partition: str | None = None) -> None:
        """Remove a partition, or a whole dataset of a table. Nothing there is no error."""
        # By their folders: what is damaged can be dropped too.
        whole = self._dataset(table, dataset)
        every = map(Path, _children(whole, "partition="))
        for folder in every if partition is None else [self._partition(table, dataset, partition)]:
            if folder.is_dir():
                # The folder and its lock stay: another writer may be waiting for it.
                with self._writing(folder):
                    (folder / _MANIFEST).unlink(missing_ok=True)
                    _sweep(folder, set())

    def _table(self, table: str) -> Path:
        if _TABLE.fullmatch(table) is None:
            raise InputError(f"{table[:40]!r} is not the name of a table. Use lower-case letters, digits and _.")
        return self.root / table

    def _dataset(self, table: str, dataset: str) -> Path:
        return self._table(table) / f"dataset={_name(dataset)}"

    def _partition(self, table: str, dataset: str, partition: str) -> Path:
        return self._dataset(table, dataset) / f"partition={_name(partition)}"


def _require_whole(files: Sequence[verified.Stored]) -> None:
    broken = verified.broken(files)
    if broken:
        raise damaged(f"The lake's {broken[0].path.parent}")


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None or ".." in text:
        raise InputError(
            f"{text[:40]!r} cannot be a name in the lake. Use letters, digits and . _ - + =, starting with a letter or digit."
        )
    return text


def _children(folder: Path, prefix: str) -> list[str]:
    """By name, as texts: to make and compare a path for each costs more than the look at what lies there."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    whole = str(folder)
    return [f"{whole}/{name}" for name in sorted(names) if name.startswith(prefix)]


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


def _read_manifest(folder: Path | str) -> Manifest | None:
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
        return msgspec.json.decode(read_sealed(Path(path)), type=Manifest)
    except FileNotFoundError:
        return None  # dropped between two looks
    except msgspec.DecodeError as exc:
        raise damaged(path) from exc


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_sealed(folder / _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def _kept(folder: Path, name: str, before: Manifest | None) -> str:
    """Checksum of a file that is there already and whole; empty where it has to be written."""
    if before is None or name not in before.files:
        return ""
    stored = verified.Stored(folder / name, before.bytes, before.checksums.get(name, ""), before.data_version)
    return "" if verified.broken([stored]) else stored.checksum or checksum(stored.path)


def _write_parquet(path: Path, rows: pl.DataFrame) -> str:
    """Checksum of what was written."""
    with replacing(path) as temporary:
        rows.write_parquet(temporary, compression=_COMPRESSION, statistics=True)
        sum_ = checksum(temporary)
    verified.remember(path)
    return sum_


def _sweep(folder: Path, wanted: set[str]) -> None:
    """Remove what no manifest needs. Only the holder of the lock writes here, so a temporary file is one of a dead writer."""
    for entry in folder.iterdir():
        if entry.name.startswith(TEMPORARY) or (entry.suffix == ".parquet" and entry.name not in wanted):
            entry.unlink(missing_ok=True)
