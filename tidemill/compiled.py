"""Compiled functions whose cache on disk cannot go stale.

numba's own cache looks at one file only: it returned an *old* result after a callee in another file had changed
(NUMBERS, Features). Here the folder of the cache is named by a hash of the transitive source, so a changed helper
compiles anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import config, njit

from tidemill.provenance import source_version

Function = TypeVar("Function", bound=Callable[..., Any])
_FOLDER = Path(__file__).resolve().parent / "__pycache__" / "kernels"


def kernel(function: Function) -> Function:
    """Compile `function` for use inside other kernels, not from Python; it is cached within the `entry` that calls it."""
    compile_inner: Any = njit  # its annotations do not know the two options, which halve the time to compile
    return cast(Function, compile_inner(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


def entry(function: Function) -> Function:
    """Compile `function` as the door that Python calls, with a cache keyed by all source that it is made of.

    Where no cache can be written, the function is compiled once in each process.
    """
    dispatcher = njit(error_model="numpy", nogil=True)(function)  # scoring runs on threads of Python
    folder = _FOLDER / source_version(function.__module__)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only installation; numba's other places for a cache would be keyed by one file only
        return cast(Function, dispatcher)
    settings: Any = config  # numba declares its settings at run time
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
    finally:
        settings.CACHE_DIR = before
    return cast(Function, dispatcher)
