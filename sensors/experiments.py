"""The experiments of a home, as sensors see them: from the table, however many runs there were since."""

from tidemill.config import Settings
from tidemill.experiments.tracked import experiments_of
from tidemill.storage.experiments import StoredExperiment
from tidemill.study.workspace import open_workspace


def experiments_in(settings: Settings) -> list[StoredExperiment]:
    """All that were run, the one that was run last first."""
    with open_workspace(settings) as opened:
        return opened.call(experiments_of, opened.database, settings.home)
