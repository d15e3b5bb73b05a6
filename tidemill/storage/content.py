"""A version of a frame that depends on its content and on nothing else.

SHA-256 over the columns: names, types, which values are null, and the values as little-endian bytes. The same rows in the same
order give the same version in every process, on every machine, with every version of polars; how the memory is chunked or how
a file was compressed does not matter. All NaN are one NaN; −0.0 and 0.0 differ.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl

from tidemill.domain.errors import InputError

_DIGITS = 32
_FEW_CELLS = 100_000  # below this threads cost more than they save


def content_version(frame: pl.DataFrame) -> str:
    """32 hex digits. InputError for a column that holds neither numbers, times, truth values nor text."""
    if frame.height * frame.width < _FEW_CELLS:
        digests = [_column_digest(column) for column in frame.get_columns()]
    else:  # hashlib lets go of the interpreter lock, so columns are hashed side by side
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            digests = list(pool.map(_column_digest, frame.get_columns()))
    whole = hashlib.sha256(f"{frame.height} {frame.width}".encode())
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()[:_DIGITS]


def _column_digest(series: pl.Series) -> bytes:
    digest = hashlib.sha256(f"{series.name}\0{_type_name(series)}\0{series.null_count()}\0".encode())
    if series.null_count() == len(series):
        return digest.digest()
    if series.null_count():
        digest.update(np.packbits(series.is_null().to_numpy()).data)
    for part in _buffers(series):
        digest.update(np.ascontiguousarray(part).data)
    return digest.digest()


def _type_name(series: pl.Series) -> str:
    return "String" if isinstance(series.dtype, pl.Categorical | pl.Enum) else str(series.dtype)


def _buffers(series: pl.Series) -> list[np.ndarray]:
    """The values as arrays; a null counts as zero or as an empty text."""
    if isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum):
        texts = series.cast(pl.String)
        return _text_buffers(texts.fill_null("") if texts.null_count() else texts)
    if series.dtype == pl.Boolean:
        return [np.packbits(series.fill_null(False).to_numpy())]
    physical = series.to_physical()
    if not physical.dtype.is_numeric():
        raise InputError(
            f"The column {series.name!r} holds {series.dtype}, which the lake cannot store. Use numbers, times or text."
        )
    values = (physical.fill_null(0) if physical.null_count() else physical).to_numpy()
    if values.dtype.kind == "f" and np.isnan(values).any():
        values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
    return [values.astype(values.dtype.newbyteorder("<"), copy=False)]


def _text_buffers(series: pl.Series) -> list[np.ndarray]:
    """Runs of equal texts: their lengths in rows, their lengths in bytes, their bytes."""
    runs = series.rle()
    texts = [text.encode() for text in runs.struct.field("value").to_list()]
    sizes = np.array([len(text) for text in texts], dtype="<i8")
    return [runs.struct.field("len").to_numpy().astype("<i8"), sizes, np.frombuffer(b"".join(texts), dtype=np.uint8)]
