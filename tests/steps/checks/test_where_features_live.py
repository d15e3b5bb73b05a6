"""A feature is proven on the bars where it lives, and one definition has one verdict, from the run and from the command."""

from pathlib import Path

import pytest

from tests.study.panels import daily_bars, small_experiment
from tidemill.domain.experiment import Experiment, FeatureSpec
from tidemill.evaluation.proving import chosen_features, prove_on_bars
from tidemill.market.panel_files import read_panel
from tidemill.steps.checks.causality import FEATURES, judge_causality
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

# The label itself, on about a tenth of the bars: those near the highest close of 400.
LABEL = """
import polars as pl

def told(bars):
    later = pl.col("open").shift(-4).over("symbol") / pl.col("open").shift(-1).over("symbol") - 1
    high = pl.col("close") > 0.97 * pl.col("close").rolling_max(400).over("symbol")
    calm = pl.col("close").rolling_std(5).over("symbol")
    return bars.select("symbol", "open_time", told=pl.when(high).then(later), calm=calm)

features(told{lookback})
"""


@pytest.fixture
def panel_file(tmp_path: Path) -> Path:
    path = tmp_path / "panel.parquet"
    daily_bars(700, ("AAA", "BBB", "CCC", "DDD")).write_parquet(path)
    return path


def judged(workspace: Workspace, experiment: Experiment) -> Study:
    study = study_of(workspace, experiment)
    for step in (sync_bars, compute_features):
        step(study)
    return study


@pytest.mark.parametrize("lookback", ["", ", lookback=6"])
def test_the_label_behind_a_condition_of_400_bars_is_refuted_by_the_run_as_by_the_command(
    workspace: Workspace, panel_file: Path, tmp_path: Path, lookback: str
) -> None:
    module = tmp_path / "mine.py"
    module.write_text(LABEL.replace("{lookback}", lookback))
    chosen = {"features": FeatureSpec(sets=(), names=("ROC5", "told", "calm")), "modules": (str(module),)}
    study = judged(workspace, small_experiment(panel_file, **chosen))
    living = study.feature_frame["told"].is_finite().mean()
    assert 0.02 < living < 0.2
    verdict = judge_causality(study, FEATURES).proof
    assert [(one.feature, one.fails) for one in verdict.refuted] == [("told", False)]
    assert {"ROC5", "calm"} <= set(verdict.proven)
    registry = study.registry.with_files([module])
    command = prove_on_bars(chosen_features(None, registry)[0], read_panel(panel_file), registry=registry)
    assert command.refuted == verdict.refuted
    assert set(command.proven) == {"calm"}
