"""A model is there when its manifest is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.study.panels import small_experiment
from tidemill.domain.errors import UnknownNameError
from tidemill.domain.experiment import RiskSpec
from tidemill.models.artifact import MANIFEST_FILE
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import train_ensemble
from tidemill.steps.models.risk import risk_key, train_risk
from tidemill.study.freshness import StepReport
from tidemill.study.model_index import artifact_folder, models_home, read_index, spec_of, stated_by
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

Step = Callable[[Study], StepReport[Any]]
TRAINED: dict[str, tuple[Step, Callable[[Study], str]]] = {
    "ridge": (lambda study: train(study, "ridge"), lambda study: study.engine_key(spec_of(study, "ridge"))),
    "ensemble": (train_ensemble, lambda study: study.ensemble_key),
    "risk": (train_risk, risk_key),
}


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    return study_of(workspace, small_experiment(folder, risk=RiskSpec(garch=False)))


@pytest.mark.finished
@pytest.mark.parametrize("name", TRAINED)
def test_a_model_whose_folder_stands_without_its_manifest_is_trained_again(study: Study, name: str) -> None:
    step, key_of = TRAINED[name]
    step(study)
    home = models_home(study.workspace)
    index = read_index(home, key_of(study))
    assert index is not None
    lost = artifact_folder(home, index.folds[-1].model_id) / MANIFEST_FILE
    whole = lost.read_bytes()
    lost.unlink()
    step(study)
    assert lost.read_bytes() == whole
    assert read_index(home, key_of(study)) == index


@pytest.mark.finished
def test_a_folder_without_a_manifest_is_no_model_that_can_be_asked_for(study: Study) -> None:
    home = models_home(study.workspace)
    artifact_folder(home, "empty").mkdir()
    with pytest.raises(UnknownNameError, match="no model named 'empty'"):
        stated_by(home, "empty")
