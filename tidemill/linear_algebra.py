"""One thread for BLAS and LAPACK: on two, a factorisation of a few hundred columns has other last bits (NUMBERS, Models)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# The count of threads is the process's, so only one piece of work at a time may set it.
_BLAS = threading.RLock()
# Each brings a library of its own.
_BRINGERS = ("numpy", "scipy.linalg", "torch")


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread, whatever the environment asks for; the count that was set before comes back.

    What is to be used must have been imported: a library that is loaded within is not held.
    """
    with _BLAS, _controller(tuple(name in sys.modules for name in _BRINGERS)).limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _controller(_loaded: tuple[bool, ...]) -> ThreadpoolController:
    """Of the libraries that are loaded; to look for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
