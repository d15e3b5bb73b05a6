"""One thread for torch. Does not import torch itself, so that engines can be listed without it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# torch's thread count is global, so only one fit or score at a time may set it.
_TORCH = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread of its own; the count that was set before comes back.

    Two threads would wait for each other at every operation: on a busy machine that made a step ten times slower.
    """
    import torch

    with _TORCH:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
