"""The sentiment of news, month by month: whatever of it is taken away is made again, and nobody does without it in silence."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.study.panels import START, small_experiment
from tidemill.domain.errors import InputError, IntegrityError
from tidemill.domain.experiment import Experiment, FeatureSpec, NewsSpec
from tidemill.maintenance.repair import repair_lake
from tidemill.steps.features.sentiment import compute_sentiment, sentiment_key
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.market_data.news import sync_news
from tidemill.study.context import news_key
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import NEWS, NEWS_SCORES, SENTIMENT, SENTIMENT_INPUTS
from tidemill.study.workspace import Workspace

MONTH = "2021-06"


@pytest.fixture
def experiment(folder: Path, tmp_path: Path) -> Experiment:
    path, texts = tmp_path / "wire.csv", ("gains on strong growth", "warns of losses", "holds its annual meeting")
    lines = [f"AAA,{START + timedelta(days=day):%Y-%m-%d},AAA {texts[day % 3]} {day}" for day in range(320)]
    path.write_text("symbol,published_at,headline\n" + "\n".join(lines) + "\n")
    features = FeatureSpec(sets=(), names=("ROC5", "STD10"))
    return small_experiment(folder, features=features, news=NewsSpec(source=f"file:{path}"))


def run(workspace: Workspace, experiment: Experiment) -> tuple[Study, dict[str, bool]]:
    """The study, and which of its steps had work to do."""
    study = study_of(workspace, experiment)
    steps = {"bars": sync_bars, "news": sync_news, "sentiment": compute_sentiment, "features": compute_features}
    return study, {name: step(study).worked for name, step in steps.items()}


def content(study: Study) -> dict[str, dict[str, str]]:
    """Table → part → version of what it holds."""
    keys = {NEWS: news_key(study), SENTIMENT: sentiment_key(study), "features": study.features_key}
    return {
        table: {part: held.data_version for part, held in study.lake.manifests(table, key).items()}
        for table, key in keys.items()
    }


def flip_a_bit(study: Study, table: str, key: str, month: str) -> None:
    path = next((study.lake.root / table / f"dataset={key}" / f"partition={month}").glob("*.parquet"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def test_a_damaged_month_of_sentiment_is_made_again_after_repair(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    expected, features = content(study), study.feature_frame
    flip_a_bit(study, SENTIMENT, sentiment_key(study), MONTH)
    with pytest.raises(IntegrityError):
        study.lake.scan(SENTIMENT, sentiment_key(study), partitions=[MONTH])
    assert [(one.table, one.partition) for one in repair_lake(workspace).removed] == [(SENTIMENT, MONTH)]
    study, worked = run(workspace, experiment)
    assert content(study) == expected
    assert study.feature_frame.equals(features)
    assert worked == {"bars": False, "news": False, "sentiment": True, "features": False}
    assert not any(run(workspace, experiment)[1].values())


@pytest.mark.parametrize("table", [NEWS, NEWS_SCORES, SENTIMENT_INPUTS])
def test_a_part_of_what_sentiment_is_made_of_is_made_again_when_it_is_gone(
    workspace: Workspace, experiment: Experiment, table: str
) -> None:
    study, _ = run(workspace, experiment)
    expected = content(study)
    key = next(iter(study.lake.datasets(table)))
    study.lake.drop(table, key, sorted(study.lake.manifests(table, key))[0])
    study, worked = run(workspace, experiment)
    assert content(study) == expected
    assert not worked["features"]
    assert not any(run(workspace, experiment)[1].values())


def test_features_are_not_made_without_the_sentiment_of_one_of_their_months(
    workspace: Workspace, experiment: Experiment
) -> None:
    study, _ = run(workspace, experiment)
    study.lake.drop(SENTIMENT, sentiment_key(study), MONTH)
    with pytest.raises(InputError, match=rf"not been computed for {MONTH}.*features/sentiment first"):
        compute_features(study_of(workspace, experiment))
