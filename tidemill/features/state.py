"""What a feature set remembers of each symbol between two bars, and its form on disk.

Layout of the bytes: magic, version, length of a JSON header, header, the arrays (little-endian), the tail, SHA-256 of all
before it.
Nothing in it is executed.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from tidemill.domain.errors import IntegrityError
from tidemill.features.arrays import Floats, Integers

_MAGIC = b"TIDEFEAT"
VERSION = 1
_PREFIX = struct.Struct("<8sHI")
NEVER = np.iinfo(np.int64).min


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fingerprint: str
    symbols: tuple[str, ...]
    slots: int
    history: int
    tail: int = 0


@dataclass(frozen=True, eq=False)
class FeatureState:
    """State of `symbols` under the feature set `fingerprint`.

    slots: symbols × places, what recursive operators carry. history: symbols × depths, earlier values of each node that some
    window reads,
    oldest first, NaN where there was no bar. times: open time of each symbol's last bar in epoch microseconds, NEVER where
    unknown.
    tail: the last bars of each symbol as an Arrow stream, for functions of a user's module; empty without them.
    """

    fingerprint: str
    symbols: tuple[str, ...]
    slots: Floats
    history: Floats
    times: Integers
    tail: bytes = b""

    @classmethod
    def empty(cls, fingerprint: str, symbols: Sequence[str], slots: int, history: int) -> "FeatureState":
        """Symbols that have had no bar yet."""
        count = len(symbols)
        times = np.full(count, NEVER, dtype=np.int64)
        return cls(fingerprint, tuple(symbols), np.zeros((count, slots)), np.full((count, history), np.nan), times)

    def require(self, fingerprint: str, slots: int, history: int) -> None:
        """Raise IntegrityError unless this is the state of that feature set."""
        if self.fingerprint != fingerprint or self.slots.shape[1] != slots or self.history.shape[1] != history:
            raise IntegrityError(
                f"The stored state belongs to another feature set ({self.fingerprint[:12]}, not {fingerprint[:12]}). "
                "Compute the features again from the start of the history."
            )

    def select(self, symbols: Sequence[str]) -> "FeatureState":
        """A copy for `symbols`, in that order; those it does not know are as new."""
        chosen = FeatureState.empty(self.fingerprint, symbols, self.slots.shape[1], self.history.shape[1])
        place = {symbol: index for index, symbol in enumerate(self.symbols)}
        pairs = [(index, place[symbol]) for index, symbol in enumerate(symbols) if symbol in place]
        into, source = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        chosen.slots[into], chosen.history[into], chosen.times[into] = (
            self.slots[source],
            self.history[source],
            self.times[source],
        )
        return chosen

    def updated(self, newer: "FeatureState") -> "FeatureState":
        """This state with the symbols of `newer` replaced or added, sorted by symbol."""
        fresh = set(newer.symbols)
        if fresh.issuperset(self.symbols) and newer.symbols == tuple(sorted(newer.symbols)):
            return FeatureState(newer.fingerprint, newer.symbols, newer.slots, newer.history, newer.times)
        kept = [index for index, symbol in enumerate(self.symbols) if symbol not in fresh]
        names = [*(self.symbols[index] for index in kept), *newer.symbols]
        order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
        return FeatureState(
            newer.fingerprint,
            tuple(names[index] for index in order),
            np.concatenate([self.slots[kept], newer.slots])[order],
            np.concatenate([self.history[kept], newer.history])[order],
            np.concatenate([self.times[kept], newer.times])[order],
        )

    def to_bytes(self) -> bytes:
        """The state as bytes; `from_bytes` gives it back to the bit."""
        shape = self.slots.shape[1], self.history.shape[1]
        header = msgspec.json.encode(_Header(self.fingerprint, self.symbols, *shape, len(self.tail)))
        arrays = [self.slots.astype("<f8"), self.history.astype("<f8"), self.times.astype("<i8")]
        body = b"".join([_PREFIX.pack(_MAGIC, VERSION, len(header)), header, *(array.tobytes() for array in arrays), self.tail])
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> "FeatureState":
        """Read what `to_bytes` wrote. Raises IntegrityError for anything else, or when a byte has changed."""
        if len(data) < _PREFIX.size + 32 or data[:8] != _MAGIC:
            raise IntegrityError("This is not a feature state. Compute the features again from the start of the history.")
        body, digest = data[:-32], data[-32:]
        _, version, length = _PREFIX.unpack_from(body)
        if hashlib.sha256(body).digest() != digest:
            raise IntegrityError("The feature state is damaged. Compute the features again from the start of the history.")
        if version != VERSION:
            raise IntegrityError(
                f"The feature state has version {version}; this program reads version {VERSION}. Compute the features again."
            )
        try:
            header = msgspec.json.decode(body[_PREFIX.size : _PREFIX.size + length], type=_Header)
        except msgspec.MsgspecError as exc:
            raise IntegrityError(
                "The feature state has an unreadable header. Compute the features again from the start of the history."
            ) from exc
        return cls._from_arrays(header, body[_PREFIX.size + length :])

    @classmethod
    def _from_arrays(cls, header: _Header, raw: bytes) -> "FeatureState":
        count = len(header.symbols)
        arrays = 8 * count * (header.slots + header.history + 1)
        if min(header.slots, header.history, header.tail) < 0 or len(raw) != arrays + header.tail:
            raise IntegrityError("The feature state is cut off. Compute the features again from the start of the history.")
        numbers = np.frombuffer(raw, dtype="<f8", count=count * (header.slots + header.history)).astype(np.float64)
        times = np.frombuffer(raw, dtype="<i8", count=count, offset=8 * numbers.size).astype(np.int64)
        slots = numbers[: count * header.slots].reshape(count, header.slots)
        history = numbers[count * header.slots :].reshape(count, header.history)
        return cls(header.fingerprint, header.symbols, slots, history, times, raw[arrays:])
