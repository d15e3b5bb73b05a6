"""Where trials of kills and of damage take place."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.trials import Trials
from tidemill.embedded import Servers


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Trials]:
    """An empty home and database for trials, and the process from which they are forked.

    In memory where that is possible: what a killed process wrote is there for the next one, synced or not.
    """
    memory = Path("/dev/shm")
    in_memory = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 28
    folder = Path(tempfile.mkdtemp(prefix="trials", dir=memory)) if in_memory else tmp_path_factory.mktemp("trials")
    made = Trials(folder, servers)
    try:
        made.begin()
        yield made
    finally:
        made.end()
