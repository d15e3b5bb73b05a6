"""How kernels are compiled and where the machine code is kept.

numba's cache looks at the file of the entry alone and returned an old result after a callee in another file had changed
(NUMBERS),
so the folder is named by a hash of all kernel sources. Floating-point rules stay strict: no fastmath.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
_HERE = Path(__file__).resolve().parent


@cache
def sources_hash() -> str:
    """Hash of every source that decides what a kernel computes."""
    digest = hashlib.sha256()
    for path in [_HERE / "opcodes.py", *sorted((_HERE / "kernels").glob("*.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that entries call; it is stored with its entry."""
    import numba

    return cast("Callable[P, R]", numba.njit(nogil=True, error_model="numpy", fastmath=False)(function))


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that Python calls, without the interpreter lock; its machine code is kept on disk where possible."""
    import numba

    folder = _folder(_numba_settings().CACHE_DIR)
    with _cache_directory(folder):
        return cast(
            "Callable[P, R]", numba.njit(nogil=True, error_model="numpy", fastmath=False, cache=folder is not None)(function)
        )


def _folder(chosen: str) -> Path | None:
    """Where machine code is kept: NUMBA_CACHE_DIR, else beside the sources, else in the user's cache. None: nowhere is
    writable.

    Never a folder that other users may write to, since numba reads what lies there as code.
    """
    places = [Path(chosen)] if chosen else [_HERE / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        places.append(Path.home() / ".cache" / "tidemill")
    for place in places:
        folder = place / f"kernels-{sources_hash()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


@contextlib.contextmanager
def _cache_directory(folder: Path | None) -> Iterator[None]:
    """numba reads this setting when a function is decorated; other kernels of the process keep theirs."""
    settings = _numba_settings()
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(folder or before)
    try:
        yield
    finally:
        settings.CACHE_DIR = before


def _numba_settings() -> Any:
    """numba's settings, whose names are made at run time."""
    from numba.core import config

    return config
