"""States of a dataset and the fits behind them: stored month by month, equal to one pass, and in an experiment's features."""

from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import daily_bars, day_of, small_experiment
from tidemill.domain.experiment import Experiment, FeatureSpec, SplitSpec
from tidemill.features.api import compute, feature_set
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.regime import compute_regime, regime_frame, regime_key
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.models.engines import train
from tidemill.steps.plots import regimes
from tidemill.study.sources import study_of
from tidemill.study.tables import REGIME, REGIME_FITS
from tidemill.study.workspace import Workspace


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    features = FeatureSpec(sets=("regime",), names=("ROC5",))
    return small_experiment(folder, features=features, splits=SplitSpec(train=100, test=30, embargo=20))


def test_the_states_are_those_of_one_pass_and_a_second_run_does_no_work(workspace: Workspace, experiment: Experiment) -> None:
    study = study_of(workspace, experiment)
    sync_bars(study)
    first = compute_regime(study)
    whole, _ = compute(study.adjusted, feature_set("regime"))
    assert regime_frame(study).equals(whole, null_equal=True)
    assert first.facts.fitted_symbols == 6
    assert first.facts.months_computed == 11
    assert len(first.table) == 6
    second = compute_regime(study_of(workspace, experiment))
    assert (first.worked, second.worked) == (True, False)
    assert second.facts.months_computed == 0
    assert second.data_version == first.data_version
    assert regimes(study).startswith(b"\x89PNG")


def test_a_new_day_costs_one_month_and_gives_the_same_bits(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    study = study_of(workspace, experiment)
    sync_bars(study)
    compute_regime(study)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    grown = study_of(workspace, experiment)
    sync_bars(grown)
    assert compute_regime(grown).facts.months_computed == 1
    whole, _ = compute(grown.adjusted, feature_set("regime"))
    assert regime_frame(grown).equals(whole, null_equal=True)


def test_two_experiments_on_one_dataset_share_the_states(workspace: Workspace, experiment: Experiment, folder: Path) -> None:
    study = study_of(workspace, experiment)
    sync_bars(study)
    compute_regime(study)
    other = study_of(workspace, small_experiment(folder))
    assert not compute_regime(other).worked


def test_the_fits_of_each_month_are_kept_with_their_cut_off_and_version(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    daily_bars(days=560, symbols=("AAA", "BBB")).write_parquet(folder / "bars.parquet")
    study = study_of(workspace, small_experiment(folder))
    sync_bars(study)
    compute_regime(study)
    fits = study.lake.scan(REGIME_FITS, regime_key(study)).collect()
    first, later = sorted(fits["open_time"].unique())
    # 253 returns (252 to fit, one purged) come with the bars 1 … 253, so the model serves from bar 254 on, then 252 bars later.
    times = study.times
    assert (first, later) == (times[254], times[506])
    assert fits.filter(pl.col("open_time") == first)["values"].unique().to_list() == [252]
    assert fits.filter(pl.col("open_time") == later)["values"].unique().to_list() == [504]
    by_state = fits.sort("symbol", "version", "state")["variance"].reshape((-1, 3)).to_numpy()
    assert (by_state[:, 0] <= by_state[:, 1]).all()
    assert (by_state[:, 1] <= by_state[:, 2]).all()
    manifests = study.lake.manifests(REGIME, regime_key(study))
    assert set(fits["version"]) <= {manifest.fingerprint for manifest in manifests.values()}


def test_models_see_the_states_when_the_experiment_names_them(workspace: Workspace, experiment: Experiment) -> None:
    study = study_of(workspace, experiment)
    sync_bars(study)
    compute_features(study)
    build_training_set(study)
    assert {"hmm_3_3", "vol_state_20_126", "ROC5"} <= set(study.training_frame.columns)
    table = study.feature_frame.select("symbol", "open_time", "hmm_3_3")
    compute_regime(study)
    assert table.equals(regime_frame(study).select("symbol", "open_time", "hmm_3_3"), null_equal=True)
    assert train(study, "ridge").worked
