"""Compiled functions: `entry` is the door that Python calls, `kernel` what entries are made of.

numba's own cache looks at one file only: it returned an *old* result after a callee in another file had changed
(NUMBERS, Features). Here the folder of the cache is named by a hash of the transitive source, so a changed helper
compiles anew. Floating-point rules stay strict: no fastmath.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from numba import config, njit
from numba.core.registry import CPUDispatcher

from tidemill.provenance import source_version

Function = TypeVar("Function", bound=Callable[..., Any])
_HERE = Path(__file__).resolve().parent
_SETTINGS: Any = config  # numba declares its settings at run time
# Without the two doors of numba's own an inner function takes half the time to compile.
_INNER = {"nopython": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class Kernel(CPUDispatcher):
    """A function that compiled code alone can call.

    It is compiled without the wrapper that takes Python's objects. numba gives Python a function all the same, whose address is
    0: a call of it ends the process.
    """

    def __call__(self, *_args: object, **_named: object) -> NoReturn:
        name = f"{self.py_func.__module__}.{self.py_func.__qualname__}"
        raise TypeError(
            f"{name} is a kernel, which compiled code alone can call. From Python call the @entry function that uses it, "
            "or write a function of your own under numba.njit that calls it."
        )


def kernel(function: Function) -> Function:
    """Compile `function` for use inside other kernels; it is cached within the `entry` that calls it.

    From Python it cannot be called: TypeError.
    """
    return cast(Function, Kernel(function, targetoptions=dict(_INNER)))


def entry(function: Function) -> Function:
    """Compile `function` as the door that Python calls, with a cache keyed by all source that it is made of.

    It holds no interpreter lock, since scoring runs on threads of Python. Where no cache can be written, the function is
    compiled once in each process.
    """
    dispatcher = njit(error_model="numpy", nogil=True)(function)
    folder = _folder(_SETTINGS.CACHE_DIR, function.__module__)
    if folder is not None:
        with _cache_directory(folder):
            dispatcher.enable_caching()
    return cast(Function, dispatcher)


def _folder(chosen: str, module: str) -> Path | None:
    """Where the machine code of a module's entries is kept: NUMBA_CACHE_DIR, else beside the sources, else in the user's cache.
    None: nowhere is writable.

    Never a folder that other users may write to, since numba reads what lies there as code.
    """
    places = [Path(chosen)] if chosen else [_HERE / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        places.append(Path.home() / ".cache" / "tidemill")
    for place in places:
        folder = place / "kernels" / source_version(module)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


@contextlib.contextmanager
def _cache_directory(folder: Path) -> Iterator[None]:
    """numba reads this setting when a cache is made; other compiled functions of the process keep theirs."""
    before = _SETTINGS.CACHE_DIR
    _SETTINGS.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        _SETTINGS.CACHE_DIR = before
