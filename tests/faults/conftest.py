"""Where trials of kills and of damage take place."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.trials import Trials
from tidemill.embedded import Servers


@pytest.fixture(scope="module")
def new_trials(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Callable[[bool], Trials]]:
    """`new_trials(context)`: an empty home and database for trials, and the process from which they are forked."""
    begun: list[Trials] = []

    def begin(context: bool) -> Trials:
        begun.append(Trials(tmp_path_factory.mktemp("trials"), servers, context=context))
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
