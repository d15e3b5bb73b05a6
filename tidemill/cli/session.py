"""Opening the workspace for a command."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.research.workspace import Workspace


@contextmanager
def workspace() -> "Iterator[Workspace]":
    """The workspace of the settings in force; servers start if they are not running."""
    from tidemill.research.workspace import open_workspace

    with open_workspace() as opened:
        yield opened
