"""Where trials of kills and of damage take place."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.trials import Trials
from tidemill.embedded import Servers


@pytest.fixture(scope="module")
def new_trials(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Callable[[bool], Trials]]:
    """`new_trials(context)`: an empty home and database for trials, and the process from which they are forked.

    In memory where that is possible: what a killed process wrote is there for the next one, synced or not.
    """
    memory = Path("/dev/shm")
    in_memory = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 28
    begun: list[Trials] = []

    def begin(context: bool) -> Trials:
        folder = Path(tempfile.mkdtemp(prefix="trials", dir=memory)) if in_memory else tmp_path_factory.mktemp("trials")
        begun.append(Trials(folder, servers, context=context))
        begun[-1].begin()
        return begun[-1]

    try:
        yield begin
    finally:
        for made in begun:
            made.end()


@pytest.fixture(scope="module")
def trials(new_trials: Callable[[bool], Trials]) -> Trials:
    """Of the experiment on bars alone."""
    return new_trials(False)


@pytest.fixture(scope="module")
def trials_in_context(new_trials: Callable[[bool], Trials]) -> Trials:
    """Of the experiment that reads news and the Fear & Greed Index beside bars."""
    return new_trials(True)
