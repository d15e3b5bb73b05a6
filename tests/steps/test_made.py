"""What was made for a study can be told from what it kept, and what is missing is said before a step looks for it."""

from pathlib import Path

import pytest

from definitions import asset_selection
from tests.study.panels import small_experiment
from tidemill.domain.errors import EngineError, InputError
from tidemill.domain.experiment import FeatureSpec, NewsSpec, RiskSpec
from tidemill.steps.made import is_made, require_made
from tidemill.steps.models.engines import train_among
from tidemill.study.failures import note
from tidemill.study.model_index import has_index, models_home
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

NOT_RUN = {"performance/drift"}


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    return study_of(workspace, small_experiment(folder))


def all_assets(study: Study) -> set[str]:
    return {key.to_user_string() for key in asset_selection(study.experiment)}


@pytest.mark.finished
def test_after_a_run_everything_is_made(study: Study) -> None:
    assert {name for name in all_assets(study) if not is_made(study, name)} == NOT_RUN
    require_made(study, "performance/report", all_assets(study) - NOT_RUN)


def test_before_a_run_nothing_is_made_that_a_step_would_read(study: Study) -> None:
    told_by_others = {"market_data/instruments", "market_data/gaps"}
    assert {name for name in all_assets(study) if is_made(study, name)} == told_by_others


@pytest.mark.finished
def test_what_an_experiment_does_not_ask_for_is_not_missed_and_what_it_asks_for_is(study: Study, folder: Path) -> None:
    beside = ("market_data/news", "market_data/fear_greed", "models/risk", "models/gru")
    require_made(study, "predictions/engines", beside)
    news, mood = folder.parent / "news.csv", folder.parent / "mood.csv"
    for path in (news, mood):
        path.touch()
    asking = small_experiment(
        folder,
        news=NewsSpec(source=f"file:{news}"),
        features=FeatureSpec(fear_greed=f"file:{mood}"),
        risk=RiskSpec(),
    )
    asks = study_of(study.workspace, asking)
    with pytest.raises(InputError) as raised:
        require_made(asks, "features/technical", beside)
    assert str(raised.value) == (
        "features/technical reads market_data/fear_greed, market_data/news and models/risk, which were never made for the "
        "experiment small: materialize these first, or make everything with `tidemill run`."
    )


@pytest.mark.finished
def test_an_engine_that_failed_is_not_waited_for(study: Study) -> None:
    (_, ridge) = study.experiment.engines
    index = models_home(study.workspace) / "index" / f"{study.engine_key(ridge)}.json"
    index.unlink()
    assert not has_index(models_home(study.workspace), study.engine_key(ridge))
    with pytest.raises(InputError, match=r"^predictions/engines reads models/ridge, which was never made .*: materialize it"):
        require_made(study, "predictions/engines", ["models/momentum", "models/ridge"])
    note(study, EngineError("ridge", ValueError("no rank")))
    require_made(study, "predictions/engines", ["models/momentum", "models/ridge"])


@pytest.mark.finished
def test_an_engine_that_the_experiment_does_not_name_says_so_and_is_not_trained(study: Study) -> None:
    told = train_among(study, "gru")
    assert (told.worked, told.data_version) == (False, "unused")
    assert told.notes == ("This experiment does not use the engine gru.",)
