"""Which experiment was run last."""

import pytest

from tidemill.config import Settings
from tidemill.domain.experiment import Experiment
from tidemill.queries.experiments import latest_experiment


@pytest.mark.finished
async def test_the_experiment_of_the_report_written_last_is_as_it_was_run(settings: Settings, experiment: Experiment) -> None:
    assert await latest_experiment(settings) == experiment


async def test_a_new_home_has_none(settings: Settings) -> None:
    assert await latest_experiment(settings) is None
