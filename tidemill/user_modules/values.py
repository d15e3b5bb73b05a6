"""Arguments and answers of functions as bytes and back: frames, named arrays, instruments, plain values. Never a pickle.

Models are stored as named arrays of float64, so bytes and texts that a `save` answers go as numbers of four bytes each.
"""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tidemill.domain.market import Instrument

FRAME, ARRAYS, KEPT, NUMBERS, INSTRUMENTS, TUPLE, PLAIN, OTHER = (
    "frame",
    "arrays",
    "kept",
    "numbers",
    "instruments",
    "tuple",
    "plain",
    "other",
)
_TEXT, _BYTES, _LENGTH = "__text__", "__bytes__", "__length__"


def packed(value: Any) -> tuple[str, bytes]:
    """What an argument is, and its bytes. TypeError for what is none of these kinds."""
    import polars as pl

    if isinstance(value, pl.DataFrame):
        buffer = io.BytesIO()
        value.write_ipc_stream(buffer)
        return FRAME, buffer.getvalue()
    if isinstance(value, Mapping) and all(isinstance(one, Instrument) for one in value.values()):
        return INSTRUMENTS, msgspec.msgpack.encode(dict(value))
    if isinstance(value, Mapping):
        return ARRAYS, _arrays(value)
    return (TUPLE if isinstance(value, tuple) else PLAIN), msgspec.msgpack.encode(value)


def packed_answer(value: Any) -> tuple[str, bytes]:
    """What a user's function answered: a frame, named arrays or numbers; OTHER, without bytes, for anything else."""
    import numpy as np
    import polars as pl

    try:
        if isinstance(value, pl.DataFrame):
            return packed(value)
        if isinstance(value, Mapping):
            return ARRAYS, _arrays(value)
        if isinstance(value, bytes | bytearray | str):
            return OTHER, b""
        return NUMBERS, np.ascontiguousarray(np.asarray(value, dtype=np.float64).reshape(-1)).tobytes()
    except (TypeError, ValueError):
        return OTHER, b""


def storable(value: Any) -> Any:
    """What a `save` answered as named arrays, if it is bytes or a text; else the value itself."""
    import numpy as np

    if not isinstance(value, bytes | bytearray | str):
        return value
    content = value.encode() if isinstance(value, str) else bytes(value)
    words = np.frombuffer(content + b"\0" * (-len(content) % 4), "<u4")
    return {_TEXT if isinstance(value, str) else _BYTES: words.astype(np.float64), _LENGTH: float(len(content))}


def restored(arrays: dict[str, Any]) -> Any:
    """The inverse of `storable`."""
    kind = next((name for name in (_TEXT, _BYTES) if set(arrays) == {name, _LENGTH}), None)
    if kind is None:
        return arrays
    content = arrays[kind].astype("<u4").tobytes()[: int(arrays[_LENGTH][0])]
    return content.decode() if kind == _TEXT else content


def unpacked(kind: str, data: bytes) -> Any:
    """The value again; a bare object for OTHER, which no caller takes for an answer; None for KEPT, which is not sent twice."""
    import numpy as np
    import polars as pl
    from safetensors.numpy import load

    if kind == FRAME:
        return pl.read_ipc_stream(io.BytesIO(data))
    if kind == ARRAYS:
        return {name: np.array(array) for name, array in load(data).items()}
    if kind == NUMBERS:
        return np.frombuffer(data, dtype=np.float64)
    if kind == INSTRUMENTS:
        return msgspec.msgpack.decode(data, type=dict[str, Instrument])
    if kind == OTHER:
        return object()
    if kind == KEPT:
        return None
    value = msgspec.msgpack.decode(data)
    return tuple(value) if kind == TUPLE else value


def taken_apart(parts: Iterable[tuple[str, int]], data: bytes) -> list[Any]:
    """The values of `data`, in which each of `parts` (kind, bytes) follows the one before."""
    made, at = [], 0
    for kind, size in parts:
        made.append(unpacked(kind, data[at : at + size]))
        at += size
    return made


def _arrays(value: Mapping[Any, Any]) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    if not all(isinstance(name, str) for name in value):
        raise TypeError("names of arrays are texts")
    return bytes(save({name: np.ascontiguousarray(np.atleast_1d(np.asarray(one, np.float64))) for name, one in value.items()}))
