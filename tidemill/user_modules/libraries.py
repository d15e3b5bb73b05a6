"""Which libraries a clean process imports before its forks: those that a file names and that are installed beside this project.

A person's own files are not among them: they may compute when they are imported, and start threads.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

from tidemill.provenance import ROOT


def import_libraries(names: Iterable[str]) -> None:
    """Import those of `names` that are libraries; whoever needs one that cannot be imported is told then."""
    for name in filter(_is_of_a_library, names):
        with suppress(Exception):
            import_module(name)


def named_in(text: str) -> Iterator[str]:
    """Modules that the statements of a file import, wherever they stand; none of a text that is not Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_of_a_library(name: str) -> bool:
    """Whether a module belongs to Python, to what is installed, or to this project."""
    with suppress(ImportError, ValueError):
        found = find_spec(name.partition(".")[0])
        place = (found.origin or "") if found else ""
        return place in ("built-in", "frozen") or place.startswith((sys.prefix, sys.base_prefix, str(ROOT / "tidemill")))
    return False
