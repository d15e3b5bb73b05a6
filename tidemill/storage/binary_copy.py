"""PostgreSQL's binary COPY format, from polars frames to bytes and back.

The format is described on PostgreSQL's manual page of COPY, "Binary Format". Rows of one layout (same null pattern, same text
lengths) have one byte pattern, so a chunk is written as a few numpy structured arrays instead of row by row.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl

from tidemill.domain.errors import InputError

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_CHUNK_ROWS = 32_768
# Postgres counts microseconds from 2000-01-01.
_EPOCH_MICROSECONDS = 946_684_800_000_000
_FIXED = {"float8": ">f8", "int8": ">i8", "int4": ">i4", "bool": "u1", "timestamptz": ">i8"}
_TEXTUAL = frozenset({"text", "jsonb"})
_SOURCE_TYPES: dict[str, pl.DataType] = {
    "float8": pl.Float64(),
    "int8": pl.Int64(),
    "int4": pl.Int32(),
    "bool": pl.Boolean(),
    "timestamptz": pl.Datetime("us", "UTC"),
    "text": pl.String(),
    "jsonb": pl.String(),
}


class _Column:
    """One column of a chunk: its values, which of them are null, and the byte length of each text."""

    def __init__(self, series: pl.Series, kind: str) -> None:
        self.null = series.is_null().to_numpy() if series.null_count() else None
        self.lengths: np.ndarray | None = None
        if kind in _TEXTUAL:
            self.values, self.lengths = _text_values(series, b"\x01" if kind == "jsonb" else b"")
        else:
            self.values = _fixed_values(series, kind)


def _fixed_values(series: pl.Series, kind: str) -> np.ndarray:
    physical = series.to_physical() if kind == "timestamptz" else series
    values = physical.fill_null(False if kind == "bool" else 0).to_numpy()
    return values - _EPOCH_MICROSECONDS if kind == "timestamptz" else values


def _text_values(series: pl.Series, prefix: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Padded bytes and true lengths; texts repeat, so each distinct one is encoded once."""
    filled = series.fill_null("")
    distinct = filled.unique(maintain_order=True)
    encoded = [prefix + text.encode() for text in distinct.to_list()]
    lengths = np.array([len(text) for text in encoded], dtype=np.int64)
    width = max(1, int(lengths.max(initial=1)))
    table = np.array(encoded, dtype=f"S{width}")
    if len(encoded) == 1:
        return np.broadcast_to(table, len(series)), np.broadcast_to(lengths, len(series))
    codes = filled.replace_strict(distinct, pl.Series(range(len(distinct)), dtype=pl.UInt32)).to_numpy()
    return table[codes], lengths[codes]


def _layouts(columns: Sequence[_Column], rows: int) -> list[np.ndarray | slice]:
    """Groups of row numbers that share a byte layout, in order of appearance within the chunk."""
    key = np.zeros(rows, dtype=np.int64)
    for column in columns:
        for part in (column.null, column.lengths):
            if part is not None and rows and (part != part[0]).any():
                codes = np.unique(part, return_inverse=True)[1]
                key = np.unique(key * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    if not key.any():
        return [slice(None)]
    order = np.argsort(key, kind="stable")
    return list(np.split(order, np.flatnonzero(np.diff(key[order])) + 1))


def _layout_bytes(columns: Sequence[_Column], kinds: Sequence[str], rows: np.ndarray | slice) -> bytes:
    """The rows of one layout. Field i is its length (−1: null, and no value follows) and its value, big-endian."""
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    first = 0 if isinstance(rows, slice) else int(rows[0])
    sizes: list[int] = []
    for number, (column, kind) in enumerate(zip(columns, kinds, strict=True)):
        fields.append((f"size{number}", ">i4"))
        if column.null is not None and column.null[first]:
            sizes.append(-1)
            continue
        dtype = _FIXED[kind] if column.lengths is None else f"S{column.lengths[first]}"
        sizes.append(np.dtype(dtype).itemsize)
        if sizes[-1]:
            fields.append((f"value{number}", dtype))
    count = len(columns[0].values[rows])
    packed = np.empty(count, dtype=fields)
    packed["fields"] = len(columns)
    for number, (column, size) in enumerate(zip(columns, sizes, strict=True)):
        packed[f"size{number}"] = size
        if size > 0:
            packed[f"value{number}"] = column.values[rows]
    return packed.tobytes()


def encode(frame: pl.DataFrame, kinds: Mapping[str, str]) -> Iterator[bytes]:
    """The bytes of `COPY table (columns of kinds) FROM STDIN (FORMAT binary)`, in chunks of a few MB.

    kinds: column → PostgreSQL type, in the order of the COPY's column list. Nulls become NULL; NaN stays NaN. Within a chunk of
    32,768 rows the order of rows with different layouts is not kept; COPY has no use for it.
    Raises InputError when the frame lacks a column or a value does not fit its type.
    """
    prepared = conform(frame, kinds)
    names = tuple(kinds.values())
    yield _HEADER
    for offset in range(0, prepared.height, _CHUNK_ROWS):
        chunk = prepared.slice(offset, _CHUNK_ROWS)
        columns = [_Column(series, kind) for series, kind in zip(chunk.get_columns(), names, strict=True)]
        yield b"".join(_layout_bytes(columns, names, rows) for rows in _layouts(columns, chunk.height))
    yield _TRAILER


def polars_type(kind: str) -> pl.DataType:
    """The polars type that travels as PostgreSQL's `kind`."""
    return _SOURCE_TYPES[kind]


def conform(frame: pl.DataFrame, kinds: Mapping[str, str]) -> pl.DataFrame:
    """`frame` with exactly the columns of `kinds` and their polars types. InputError names what does not fit."""
    missing = [name for name in kinds if name not in frame.columns]
    if missing:
        raise InputError(f"The frame lacks the column {missing[0]!r}; it has {', '.join(frame.columns)}.")
    try:
        return frame.select(pl.col(name).cast(_SOURCE_TYPES[kind]) for name, kind in kinds.items())
    except (pl.exceptions.InvalidOperationError, pl.exceptions.ComputeError) as exc:
        raise InputError(f"A value does not fit its column: {str(exc).splitlines()[0]}.") from exc


def decode_grouped(data: bytes, kinds: Mapping[str, str]) -> pl.DataFrame:
    """The frame of a binary COPY whose first column is a text by which rows are grouped and whose others are of fixed width.

    Rows of one group have one size, so each run of equal text is read as one structured array. NULLs are not allowed (the query
    replaces them). kinds: column → PostgreSQL type in the order of the query.
    """
    group, *rest = kinds
    runs: list[np.ndarray] = []
    names: list[str] = []
    position, end = len(_HEADER), len(data) - len(_TRAILER)
    while position < end:
        width = int.from_bytes(data[position + 2 : position + 6], "big")
        row = _row_type(width, [kinds[name] for name in rest])
        rows = _run(np.frombuffer(data, row, (end - position) // row.itemsize, position))
        names.append(data[position + 6 : position + 6 + width].decode())
        runs.append(rows)
        position += rows.nbytes
    lengths = [len(rows) for rows in runs]
    columns = [pl.Series(group, names, pl.String).gather(np.repeat(np.arange(len(runs), dtype=np.uint32), lengths))]
    for number, name in enumerate(rest):
        columns.append(_decoded(name, kinds[name], [rows[f"value{number}"] for rows in runs]))
    return pl.DataFrame(columns)


def _row_type(width: int, kinds: Sequence[str]) -> np.dtype:
    fields: list[tuple[str, str]] = [("fields", ">i2"), ("size", ">i4"), ("group", f"V{width}")]
    for number, kind in enumerate(kinds):
        fields += [(f"size{number}", ">i4"), (f"value{number}", _FIXED[kind])]
    return np.dtype(fields)


def _run(rows: np.ndarray) -> np.ndarray:
    """The leading rows that have the group of the first; looks at blocks that double, since a run may be short or the whole."""
    start, block = 0, 256
    while start < len(rows):
        part = rows[start : start + block]
        same = (part["size"] == rows["size"][0]) & (part["group"] == rows["group"][0])
        if not same.all():
            return rows[: start + int(np.argmin(same))]
        start, block = start + block, block * 2
    return rows


def _decoded(name: str, kind: str, pieces: Sequence[np.ndarray]) -> pl.Series:
    dtype = _SOURCE_TYPES[kind]
    if not pieces:
        return pl.Series(name, [], dtype)
    values = np.concatenate(pieces).astype(pieces[0].dtype.newbyteorder("="))
    if kind == "timestamptz":
        values += _EPOCH_MICROSECONDS
    return pl.Series(name, values).cast(dtype)
