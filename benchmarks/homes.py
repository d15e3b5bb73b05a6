"""Homes that a benchmark makes and takes away again, servers and their data, which for root lie elsewhere, among them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.config import Settings
from tidemill.embedded import stop
from tidemill.keeper.folder import existing


@contextmanager
def new_homes(count: int = 1) -> Iterator[tuple[Path, ...]]:
    """`count` homes that are not there yet, each in a folder of its own in which a benchmark may leave more."""
    with tempfile.TemporaryDirectory() as folder:
        homes = tuple(Path(folder) / str(number) / "home" for number in range(count))
        for home in homes:
            home.parent.mkdir()
        try:
            yield homes
        finally:
            for home in homes:
                _remove(home)


def _remove(home: Path) -> None:
    stop(Settings(home=home))
    made = existing(home)
    if made is not None:
        shutil.rmtree(made.root, ignore_errors=True)
