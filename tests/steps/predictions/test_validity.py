"""What is kept of predictions that do not count follows the folds."""

from pathlib import Path

import pytest

from tests.study.panels import small_experiment
from tidemill.steps.predictions.validity import validate_predictions
from tidemill.study.sources import study_of
from tidemill.study.tables import FEATURE_BOUNDS, REFUSALS, partition_of
from tidemill.study.workspace import Workspace


@pytest.mark.finished
def test_what_was_kept_of_a_fold_that_is_no_more_goes(workspace: Workspace, folder: Path) -> None:
    study = study_of(workspace, small_experiment(folder))
    before, folds = validate_predictions(study), {partition_of(fold) for fold in study.folds}
    for table in (REFUSALS, FEATURE_BOUNDS):
        rows = study.lake.scan(table, study.key).head(1).collect()
        study.lake.write(table, study.key, "fold-099", rows)
    after = validate_predictions(study)
    assert (after.worked, after.version, after.counts) == (0, before.version, before.counts)
    for table in (REFUSALS, FEATURE_BOUNDS):
        assert study.lake.manifests(table, study.key).keys() == folds
