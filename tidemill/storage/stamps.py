"""Who wrote last: a file of stamps that the processes of a host share through memory.

A reader notes the stamp of a key before it loads, a writer changes it after its commit and before it returns. An entry whose
stamp is not the current one is old, whatever level it lies on. Keys share 65,536 stamps by hash: a collision costs a needless
load, never a stale hit.
"""

import fcntl
import hashlib
import mmap
import os
from pathlib import Path

from tidemill.durable import make_folder, write_file

_SLOTS = 65_536
_WIDTH = 8


class Stamps:
    """The stamps of one host. Reading and writing one takes a microsecond and no lock: each is one aligned machine word."""

    def __init__(self, path: Path) -> None:
        if not _is_whole(path):
            _create(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, _SLOTS * _WIDTH)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("Q")

    def read(self, key: str) -> int:
        """The stamp of a key now."""
        return self._words[_slot(key)]

    def change(self, key: str) -> None:
        """Make every entry of `key` old. The new stamp is random: no count that two writers could raise to the same number."""
        self._words[_slot(key)] = _fresh()

    def change_all(self) -> None:
        """Make every entry old."""
        for slot in range(_SLOTS):
            self._words[slot] = _fresh()

    def close(self) -> None:
        self._words.release()
        self._map.close()


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == _SLOTS * _WIDTH


def _create(path: Path) -> None:
    """A file of random stamps, so that none equals what an earlier file held: Redis may still have entries of that time.

    One process makes it: what another put in its place would leave those that share the first without word of later writes.
    """
    make_folder(path.parent)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _is_whole(path):
            write_file(path, os.urandom(_SLOTS * _WIDTH))
    finally:
        os.close(descriptor)


def _fresh() -> int:
    return int.from_bytes(os.urandom(_WIDTH), "little")


def _slot(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little") % _SLOTS
