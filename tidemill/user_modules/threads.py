"""Threads of a person's function: one that fails is told, and none may outlive its call.

What a thread raises does not reach the function that started it, so without this the function would answer as if all were well.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidemill.domain.errors import InputError
from tidemill.user_modules.execution import explained


@contextmanager
def ended_threads(file: Path, what: str) -> Iterator[None]:
    """InputError where a thread that was started within failed, or still runs at the end. what: the subject of its sentence."""
    before, failed = set(threading.enumerate()), list[BaseException]()

    def bare(unraisable: Any) -> None:
        """Of `_thread.start_new_thread`, which knows no other hook."""
        if "thread started by" in (unraisable.err_msg or "") and unraisable.exc_value is not None:
            failed.append(unraisable.exc_value)

    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda told: failed.append(told.exc_value or told.exc_type())
    sys.unraisablehook = bare
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
    _require_fine(file, what, failed, [one.name for one in threading.enumerate() if one not in before])


def _require_fine(file: Path, what: str, failed: list[BaseException], running: list[str]) -> None:
    for error in failed:
        with explained(file, f"A thread of {what[:1].lower()}{what[1:]}"):
            raise error
    if running:
        raise InputError(f"{what} leaves a thread running ({running[0]}). Wait for its end before you return, as with join().")
