"""Opening the workspace for a command."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tidemill.cli.common.progress import progress

if TYPE_CHECKING:
    from tidemill.study.registry import Registry
    from tidemill.study.workspace import Workspace


@contextmanager
def workspace() -> "Iterator[Workspace]":
    """The workspace of the settings in force; servers start if they are not running."""
    from tidemill.config import load_settings
    from tidemill.study.workspace import open_workspace

    with ExitStack() as stack:
        with progress("Starting Postgres and Redis"):
            opened = stack.enter_context(open_workspace(load_settings()))
        yield opened


def registry() -> "Registry":
    """What every command knows by name: what ships, and the files of the settings in force."""
    from tidemill.config import load_settings
    from tidemill.study.registry import Registry

    return Registry.of(load_settings())
