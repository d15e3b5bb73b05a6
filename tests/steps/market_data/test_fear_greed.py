"""The index in a study: asked for only when the experiment says so, known only when it was, and one new day costs one month."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.study.panels import START, before_day, day_of, small_experiment
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import DatasetSpec, Experiment, FeatureSpec
from tidemill.experiments.files import checked
from tidemill.features.api import compute, feature_set
from tidemill.market import fear_greed as market
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.market_data.fear_greed import known_index, sync_fear_greed
from tidemill.steps.models.engines import train
from tidemill.study.freshness import StepReport
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

NAMES = ("fear_greed", "fear_greed_change_7")


def write_index(path: Path, days: int, changed: dict[int, int] | None = None) -> None:
    values = {day: day * 7 % 101 for day in range(-10, days)} | (changed or {})
    lines = [f"{(START + timedelta(days=day)):%Y-%m-%d},{value}" for day, value in values.items()]
    path.write_text("date,value\n" + "\n".join(lines) + "\n")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "index.csv"
    write_index(path, 328)
    return path


@pytest.fixture
def experiment(folder: Path, index: Path) -> Experiment:
    return small_experiment(folder, features=FeatureSpec(sets=(), names=("ROC5", "STD10"), fear_greed=f"file:{index}"))


def run(workspace: Workspace, experiment: Experiment) -> tuple[Study, dict[str, StepReport[Any]]]:
    study = study_of(workspace, experiment)
    steps = {"bars": sync_bars, "index": sync_fear_greed, "features": compute_features, "labels": build_training_set}
    return study, {name: step(study) for name, step in steps.items()}


def test_every_bar_has_the_value_of_the_day_that_its_close_ends(workspace: Workspace, experiment: Experiment) -> None:
    study, reports = run(workspace, experiment)
    assert study.features.names == ("ROC5", "STD10", *NAMES)
    frame = study.feature_frame.filter(pl.col("symbol") == "AAA")
    assert frame["fear_greed"].to_list() == [day * 7 % 101 for day in range(328)]
    assert frame["fear_greed_change_7"].to_list() == [day * 7 % 101 - (day - 7) * 7 % 101 for day in range(328)]
    assert set(NAMES) <= set(study.training_frame.columns)
    assert reports["index"].facts.days_missing == 0
    assert reports["index"].rows == 338


def test_models_are_trained_on_the_index_and_remember_it(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    train(study, "ridge")
    plain = study_of(
        workspace, small_experiment(Path(experiment.dataset.source[5:]), features=FeatureSpec(sets=(), names=("ROC5", "STD10")))
    )
    assert plain.features.fingerprint != study.features.fingerprint
    assert plain.features_key != study.features_key


def test_nothing_new_does_no_work_and_one_new_day_costs_one_month(
    workspace: Workspace, experiment: Experiment, folder: Path, index: Path, panel: pl.DataFrame
) -> None:
    _, first = run(workspace, experiment)
    _, second = run(workspace, experiment)
    assert all(first[name].worked for name in ("index", "features"))
    assert not any(report.worked for report in second.values())
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    write_index(index, 329)
    _, third = run(workspace, experiment)
    assert third["index"].worked
    assert third["features"].facts.months_computed == 1


def test_a_value_that_is_changed_later_leaves_the_past_as_it_was_known(
    workspace: Workspace, experiment: Experiment, index: Path
) -> None:
    before, _ = run(workspace, experiment)
    held = before.feature_frame
    write_index(index, 328, changed={100: 99})
    after, reports = run(workspace, experiment)
    assert reports["index"].facts.later_versions == 1
    assert not reports["features"].worked
    assert after.feature_frame.equals(held, null_equal=True)


def test_the_stored_features_are_those_of_one_pass_over_everything(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    joined = market.join_known(study.adjusted, known_index(study), study.dataset.interval)
    whole, _ = compute(joined, study.features)
    assert study.feature_frame.equals(whole, null_equal=True)


def test_an_experiment_that_does_not_use_the_index_asks_nobody(workspace: Workspace, folder: Path) -> None:
    report = sync_fear_greed(study_of(workspace, small_experiment(folder)))
    assert not report.worked
    assert report.rows == 0
    assert "does not use" in report.notes[0]


def test_features_before_the_index_was_fetched_say_what_to_do(workspace: Workspace, experiment: Experiment) -> None:
    study = study_of(workspace, experiment)
    sync_bars(study)
    with pytest.raises(InputError, match="market_data/fear_greed first"):
        compute_features(study)


def test_a_feature_of_the_index_without_a_source_and_an_unknown_source_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"features\.fear_greed"):
        checked(small_experiment(folder, features=FeatureSpec(sets=(), names=("fear_greed",))))
    with pytest.raises(UnknownNameError, match="file:PATH"):
        checked(small_experiment(folder, features=FeatureSpec(sets=("alpha30",), fear_greed="somewhere")))


def test_bars_without_the_index_are_an_error_that_names_the_column(panel: pl.DataFrame) -> None:
    bars = before_day(panel, 5).rename({"date": "open_time"}).with_columns(pl.col("open_time").cast(pl.Datetime("us", "UTC")))
    with pytest.raises(InputError, match="no column 'fear_greed'"):
        compute(bars, feature_set("fear_greed"))


class Recorded:
    """A source that notes what it was asked."""

    name = market.API

    def __init__(self) -> None:
        self.asked: list[datetime | None] = []

    async def values(self, since: datetime | None) -> pl.DataFrame:
        self.asked.append(since)
        newest = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        stamps = [newest - timedelta(days=back) for back in (2, 1, 0)]
        return market.settled(stamps, [10.0, 20.0, 30.0], now=datetime.now(UTC))

    async def close(self) -> None: ...


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    source = Recorded()
    monkeypatch.setattr("tidemill.steps.market_data.fear_greed.fear_greed_source", lambda *_: source)
    return source


def test_the_api_is_not_asked_again_before_a_new_value_can_be_there(
    workspace: Workspace, folder: Path, recorded: Recorded
) -> None:
    experiment = small_experiment(folder, features=FeatureSpec(sets=("alpha30",), fear_greed=market.API))
    first = sync_fear_greed(study_of(workspace, experiment))
    again = sync_fear_greed(study_of(workspace, experiment))
    assert recorded.asked == [None]
    assert (first.worked, again.worked) == (True, False)
    assert first.data_version == again.data_version
    assert again.table[0][1] == 30.0


def test_an_hourly_dataset_gets_a_day_s_value_from_its_end(workspace: Workspace, tmp_path: Path, index: Path) -> None:
    folder = tmp_path / "hourly"
    folder.mkdir()
    times = [START + timedelta(hours=hour) for hour in range(24 * 5)]
    prices = pl.DataFrame({"symbol": ["AAA"] * len(times), "open_time": times}).with_columns(
        (100.0 + pl.int_range(pl.len()) % 7).alias("close"), volume=pl.lit(10.0)
    )
    bars = prices.with_columns(open=pl.col("close"), high=pl.col("close") + 1.0, low=pl.col("close") - 1.0)
    bars.write_parquet(folder / "bars.parquet")
    experiment = small_experiment(
        folder,
        dataset=DatasetSpec(source=f"file:{folder}", interval="1h"),
        features=FeatureSpec(sets=(), names=("ROC5",), fear_greed=f"file:{index}"),
    )
    study, _ = run(workspace, experiment)
    values = study.feature_frame["fear_greed"].to_list()
    # Day 0 is over when the bar of 23:00 closes.
    assert values[22] == -7 % 101
    assert values[23:47] == [0.0] * 24
    assert values[47] == 7.0
    assert values[-1] == 28.0


class Rewritten(market.FearGreedFile):
    """A file that another program replaces as soon as it was read."""

    async def values(self, since: datetime | None) -> pl.DataFrame:
        known = await super().values(since)
        write_index(self.path, 328, changed={100: 99})
        return known


def test_a_file_that_changes_while_it_is_read_is_read_again(
    workspace: Workspace, experiment: Experiment, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("tidemill.steps.market_data.fear_greed.fear_greed_source", lambda *_: Rewritten(index))
        assert sync_fear_greed(study_of(workspace, experiment)).facts.later_versions == 0
    assert sync_fear_greed(study_of(workspace, experiment)).facts.later_versions == 1


def test_what_another_database_does_not_hold_is_read_from_the_file_again(workspace: Workspace, experiment: Experiment) -> None:
    first = sync_fear_greed(study_of(workspace, experiment))
    workspace.call(workspace.database.execute, "DELETE FROM fear_greed WHERE stamp > '2021-06-01'")
    again = sync_fear_greed(study_of(workspace, experiment))
    assert (again.rows, again.data_version, again.worked) == (first.rows, first.data_version, False)
