"""A hash of every source that decides what a feature's kernels compute: features made by other ones are stale."""

import hashlib
from functools import cache
from pathlib import Path

_HERE = Path(__file__).resolve().parent


@cache
def sources_hash() -> str:
    """Hash of every source that decides what a kernel computes."""
    digest = hashlib.sha256()
    for path in [_HERE / "opcodes.py", *sorted((_HERE / "kernels").glob("*.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
