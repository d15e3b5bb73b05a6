"""Arguments and answers of functions as bytes and back: frames, named arrays, instruments, plain values. Never a pickle."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tidemill.domain.market import Instrument

FRAME, ARRAYS, NUMBERS, INSTRUMENTS, TUPLE, PLAIN, OTHER = (
    "frame",
    "arrays",
    "numbers",
    "instruments",
    "tuple",
    "plain",
    "other",
)


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
        return NUMBERS, np.ascontiguousarray(np.asarray(value, dtype=np.float64).reshape(-1)).tobytes()
    except (TypeError, ValueError):
        return OTHER, b""


def unpacked(kind: str, data: bytes) -> Any:
    """The value again; a bare object for OTHER, which no caller takes for an answer."""
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
