"""The door to the trial ledger for everything that evaluates a configuration: steps, commands, searches, sweeps, the lab."""

from __future__ import annotations

from tidemill.research.workspace import Workspace
from tidemill.storage.trials import Recorded, TrialBatch
from tidemill.storage.trials import record_trials as record_in


def record_trials(workspace: Workspace, batch: TrialBatch) -> Recorded:
    """Count the trials of a batch in this workspace's ledger; the same again changes nothing.

    One call for a whole sweep: a thousand trials of 1,259 returns take well under a second. Whatever looks at how a
    configuration did on data calls this, before its result is shown.
    """
    return workspace.call(record_in, workspace.database, workspace.lake, batch)
