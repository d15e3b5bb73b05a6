"""Tables in files as a stream of chunks: CSV (also gzipped) as text, Parquet as typed columns, in bounded memory.

Every chunk carries `source_line` (Int64): the 1-based line of a CSV, header included, or the 1-based row of a Parquet file.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import polars as pl

from tidemill.domain.errors import InputError

BLOCK_BYTES = 16 << 20
HEADER_BYTES = 1 << 20
PARQUET_ROWS = 250_000
CSV_SUFFIXES = (".csv", ".csv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
EXTRA_CELL = "__extra"
_BOM = b"\xef\xbb\xbf"
_SEPARATORS = (",", ";", "\t", "|")


def is_table(path: Path) -> bool:
    """Whether the name ends as CSV or Parquet files do."""
    return path.name.lower().endswith(CSV_SUFFIXES + PARQUET_SUFFIXES)


def stem(path: Path) -> str:
    """The name without the endings that `is_table` knows: `AAPL.csv.gz` gives `AAPL`."""
    name = path.name
    for suffix in sorted(CSV_SUFFIXES + PARQUET_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def table_columns(path: Path) -> list[str]:
    """Column names as the file gives them. InputError when it is empty or cannot be read."""
    if _is_parquet(path):
        return list(_parquet_schema(path))
    with _open(path) as stream:
        return _header(path, _read(path, stream, HEADER_BYTES))[0]


def table_chunks(path: Path, columns: list[str] | None = None, *, rows: int | None = None) -> Iterator[pl.DataFrame]:
    """Chunks of the file in its order.

    columns: the ones to read (default all); in a CSV every cell is text, an empty one null, and `__extra` is not null where a
    line has too many cells. rows: stop after so many. Raises InputError naming file and line for what cannot be read at all:
    not UTF-8, a broken archive, an empty file.
    """
    chunks = _parquet_chunks(path, columns, rows) if _is_parquet(path) else _csv_chunks(path, columns, rows)
    left = rows
    for chunk in chunks:
        if left is None:
            yield chunk
            continue
        yield chunk.head(left)
        left -= chunk.height
        if left <= 0:
            return


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET_SUFFIXES)


# --- Parquet ---------------------------------------------------------------------------------------------------------------


def _parquet_schema(path: Path) -> pl.Schema:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty. Give a file with a header and at least one row.")
    try:
        return pl.scan_parquet(path).collect_schema()
    except (pl.exceptions.PolarsError, OSError) as exc:
        raise InputError(f"{path} is not a readable Parquet file: {_first_line(exc)}. Write it again.") from exc


def _parquet_chunks(path: Path, columns: list[str] | None, rows: int | None) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _parquet_schema(path)
    size = min(PARQUET_ROWS, rows or PARQUET_ROWS)
    line = 1
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=size, columns=columns):
                frame = pl.from_arrow(batch)
                if not isinstance(frame, pl.DataFrame):
                    raise InputError(f"{path} holds no table. Give a Parquet file with columns.")
                yield _numbered(frame, line)
                line += frame.height
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as exc:
        raise InputError(f"{path} is a damaged Parquet file after row {line - 1}: {_first_line(exc)}. Write it again.") from exc
    if line == 1:
        raise InputError(f"{path} holds no rows. Give a file with at least one bar.")


# --- CSV -------------------------------------------------------------------------------------------------------------------


def _open(path: Path) -> IO[bytes]:
    try:
        stream = path.open("rb")
    except OSError as exc:
        raise InputError(f"{path} cannot be opened: {exc.strerror}.") from exc
    magic = stream.read(2)
    stream.seek(0)
    if magic != b"\x1f\x8b":
        return stream
    return io.BufferedReader(gzip.GzipFile(fileobj=stream))


def _read(path: Path, stream: IO[bytes], size: int) -> bytes:
    try:
        return stream.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as exc:
        raise InputError(f"{path} cannot be read to its end: {_first_line(exc)}. Fetch or write it again.") from exc


def _blocks(path: Path, stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Whole lines, about `size` bytes at a time."""
    rest = b""
    while block := _read(path, stream, size):
        cut = block.rfind(b"\n") + 1
        if cut == 0:
            rest += block
            if len(rest) > 2 * BLOCK_BYTES:
                raise InputError(f"{path} has a line longer than {BLOCK_BYTES >> 20} MiB; it is not a CSV file.")
            continue
        yield rest + block[:cut]
        rest = block[cut:]
    if rest:
        yield rest


def _header(path: Path, block: bytes) -> tuple[list[str], str, int]:
    """Column names, separator, and the bytes that the header takes."""
    if not block.strip():
        raise InputError(f"{path} is empty. Give a file with a header and at least one row.")
    end = block.find(b"\n") + 1 or len(block)
    line = _decoded(path, block[:end].removeprefix(_BOM), 1).strip("\r\n")
    separator = max(_SEPARATORS, key=line.count)
    return [name.strip().strip('"').strip() for name in line.split(separator)], separator, end


def _decoded(path: Path, block: bytes, line: int) -> str:
    """`block`, which begins with `line`, as text."""
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as exc:
        at = line + block.count(b"\n", 0, exc.start)
        column = exc.start - block.rfind(b"\n", 0, exc.start)
        raise InputError(
            f"{path} is not UTF-8: line {at}, byte {column} of the line is 0x{block[exc.start]:02x}. Save the file as UTF-8."
        ) from exc


def _csv_chunks(path: Path, columns: list[str] | None, rows: int | None) -> Iterator[pl.DataFrame]:
    size = BLOCK_BYTES if rows is None else min(BLOCK_BYTES, 256 * rows)
    seen = False
    with _open(path) as stream:
        line, names, separator = 1, [""], ","
        for number, block in enumerate(_blocks(path, stream, size)):
            body = block
            if number == 0:
                names, separator, end = _header(path, block)
                body, line = block[end:], 2
            if not body:
                continue
            if not body.isascii():  # a tenth of the cost of decoding
                _decoded(path, body, line)
            frame = _parse(path, body, names, separator)
            keep = [EXTRA_CELL, *(columns if columns is not None else names)]
            numbered = _numbered(frame.select(keep), line)
            line += frame.height
            filled = numbered.filter(~pl.all_horizontal(pl.exclude("source_line").is_null()))
            seen = seen or filled.height > 0
            yield filled
    if not seen:
        raise InputError(f"{path} holds no rows. Give a file with a header and at least one row.")


def _parse(path: Path, body: bytes, names: list[str], separator: str) -> pl.DataFrame:
    """One row for each line, blank ones too, every cell text."""
    lines = body.count(b"\n") + (not body.endswith(b"\n"))
    frame = _parsed(path, body, names, separator, '"')
    if frame.height == lines:
        return frame
    # A lone quotation mark has swallowed line ends: then it is a character like any other.
    return _parsed(path, body, names, separator, None)


def _parsed(path: Path, body: bytes, names: list[str], separator: str, quote: str | None) -> pl.DataFrame:
    schema = dict.fromkeys([*names, EXTRA_CELL], pl.String)
    if len(schema) != len(names) + 1:
        raise InputError(f"{path} has a column name twice in its header: {', '.join(names)}. Rename one.")
    try:
        return pl.read_csv(
            io.BytesIO(body),
            has_header=False,
            schema=schema,
            separator=separator,
            quote_char=quote,
            truncate_ragged_lines=True,
            missing_columns="insert",
            raise_if_empty=False,
        )
    except pl.exceptions.PolarsError as exc:
        if quote is not None:
            return _parsed(path, body, names, separator, None)
        raise InputError(f"{path} cannot be read as CSV: {_first_line(exc)}.") from exc


def _numbered(frame: pl.DataFrame, first: int) -> pl.DataFrame:
    return frame.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias("source_line"))


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0].rstrip(".")
