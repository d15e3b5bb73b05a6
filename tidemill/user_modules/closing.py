"""Readers and writers of libraries are native code, which no audit event sees; here they refuse paths, as `open` does.

What a module reads beside its bars would be no part of its fingerprint: a result could change and nobody would know why. What
is given as an object in memory passes.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tidemill.user_modules.execution import AccessRefusedError

_TABLES = ("read_", "scan_", "write_", "sink_")
# Module → beginnings of the names in it that read or write.
_READING: dict[str, tuple[str, ...]] = {
    "polars": _TABLES,
    "polars.io": _TABLES,
    "pandas": ("read_",),
    "pyarrow": ("memory_map", "OSFile", "MemoryMappedFile", "create_memory_map", "input_stream", "output_stream"),
    "pyarrow.csv": ("read_", "open_", "write_", "CSVWriter"),
    "pyarrow.json": ("read_", "open_"),
    "pyarrow.parquet": ("read_", "write_", "Parquet"),
    "pyarrow.feather": ("read_", "write_", "FeatherDataset"),
    "pyarrow.orc": ("read_", "write_", "ORC"),
    "pyarrow.ipc": ("open_", "new_", "RecordBatchFile", "RecordBatchStream"),
    "pyarrow.dataset": ("dataset", "parquet_dataset", "write_dataset", "FileSystemDataset"),
    "pyarrow.fs": ("FileSystem", "LocalFileSystem", "SubTree", "S3", "Gcs", "Azure", "Hadoop", "PyFileSystem", "copy_files"),
    "torch": ("from_file",),
    "duckdb": (),  # closes its file system by a setting
}
_NO_FILES = "SET disabled_filesystems = 'LocalFileSystem'"
# Names that a source or a target has where it is given by name.
_SOURCES = ("source", "sources", "path", "paths", "file", "io", "filepath_or_buffer", "path_or_buf", "where", "base_dir", "uri")
_IN_SQL = re.compile(r"\b((?:read|scan)_\w+)[\"'`]?\s*\(", re.IGNORECASE)
_MARK = "refuses_paths"


def libraries_with_readers(text: str) -> Iterator[str]:
    """The modules with readers, of libraries that a text mentions: to be imported before they are closed."""
    return (name for name in _READING if name.partition(".")[0] in text)


def close_readers() -> None:
    """Let the readers of what is imported refuse paths; those that do already stay as they are."""
    for module, beginnings in _READING.items():
        if module in sys.modules:
            _close(sys.modules[module], beginnings, module.partition(".")[0], own=0)
    if "polars" in sys.modules:
        _close_polars()
    if "torch" in sys.modules:
        _close_static(sys.modules["torch"].UntypedStorage, "from_file", "torch")
    if "duckdb" in sys.modules:
        _close_duckdb()


def close_default_database(text: str) -> None:
    """As `close_readers`, for the database that duckdb has without a connection: it has threads, which only forks may start.

    text: of the file that is run; most name no duckdb, and the database takes a fifth of a second.
    """
    if "duckdb" in text and "duckdb" in sys.modules:
        sys.modules["duckdb"].default_connection().execute(_NO_FILES)


def _close_polars() -> None:
    import polars as pl

    for owner in (pl.DataFrame, pl.LazyFrame):
        _close(owner, _TABLES, "polars", own=1)
    for kind in (pl.DataFrame, pl.LazyFrame, pl.Expr):
        _close_static(kind, "deserialize", "polars")
    if not hasattr(pl.SQLContext.execute, _MARK):
        pl.SQLContext.execute = _refusing_sql(pl.SQLContext.execute)  # type: ignore[method-assign]  # that is the point


def _close_duckdb() -> None:
    import duckdb

    original = duckdb.connect
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def connect(database: Any = ":memory:", *args: Any, **kwargs: Any) -> Any:
        if not str(database).startswith(":"):
            raise AccessRefusedError("wants to use connect of duckdb")
        connection = original(database, *args, **kwargs)
        connection.execute(_NO_FILES)
        return connection

    setattr(connect, _MARK, True)
    duckdb.connect = connect


def _close(owner: Any, beginnings: tuple[str, ...], library: str, own: int) -> None:
    for name in [name for name in dir(owner) if name.startswith(beginnings)] if beginnings else ():
        original = getattr(owner, name)
        if callable(original) and not hasattr(original, _MARK):
            setattr(owner, name, _refusing(original, f"{name} of {library}", own))


def _close_static(owner: Any, name: str, library: str) -> None:
    """One that is called of the class itself."""
    original = getattr(owner, name)
    if not hasattr(original, _MARK):
        setattr(owner, name, staticmethod(_refusing(original, f"{name} of {library}", own=0)))


def _refusing(original: Callable[..., Any], what: str, own: int) -> Callable[..., Any]:
    """own: how many arguments are the object itself."""

    @functools.wraps(original, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        given = [*args[own : own + 1], *(kwargs[name] for name in _SOURCES if name in kwargs)]
        if any(map(_is_outside, given)) or not (given or own):
            raise AccessRefusedError(f"wants to use {what}")
        return original(*args, **kwargs)

    setattr(call, _MARK, True)
    return call


def _is_outside(given: object) -> bool:
    """Whether an argument says where something lies; what holds the content itself does not."""
    if isinstance(given, list | tuple):
        return any(map(_is_outside, given))
    return isinstance(given, str | os.PathLike)


def _refusing_sql(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(context: Any, query: str, *args: Any, **kwargs: Any) -> Any:
        found = _IN_SQL.search(str(query))
        if found is not None:
            raise AccessRefusedError(f"wants to use {found[1].lower()} in SQL of polars")
        return original(context, query, *args, **kwargs)

    setattr(execute, _MARK, True)
    return execute
