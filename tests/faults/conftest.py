"""Where trials of kills and of damage take place."""

from collections.abc import Iterator

import pytest

from tests.faults.trials import Trials
from tidemill.embedded import Servers


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Trials]:
    """An empty home and database for trials, and the process from which they are forked."""
    made = Trials(tmp_path_factory.mktemp("trials"), servers)
    try:
        made.begin()
        yield made
    finally:
        made.end()
