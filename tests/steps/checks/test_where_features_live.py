"""A feature is proven on the bars where it lives, and one definition has one verdict, from the run and from the command."""

from pathlib import Path

import msgspec
import pytest

from tests.study.panels import before_day, daily_bars, small_experiment
from tidemill.domain.experiment import Experiment, FeatureSpec
from tidemill.evaluation.proving import chosen_features, prove_on_bars
from tidemill.market.panel_files import read_panel
from tidemill.steps.checks.causality import FEATURES, is_proven, judge_causality, unjudged_notes
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace
from tidemill.validation.causality.proof import Proof

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
    daily_bars(700, ("AAA", "BBB")).write_parquet(path)
    return path


def judged(workspace: Workspace, experiment: Experiment) -> Study:
    study = study_of(workspace, experiment)
    for step in (sync_bars, compute_features):
        step(study)
    return study


@pytest.mark.parametrize("lookback", ["", pytest.param(", lookback=6", marks=pytest.mark.long)])
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


# Constant as long as no bar is of the last days of the panel.
LATER = """
import polars as pl

def later(bars):
    there = pl.col("open_time") >= pl.datetime(2022, 3, 22, time_zone="UTC")
    return bars.select("symbol", "open_time", later=pl.when(there).then(pl.col("close")).otherwise(1.0))

features(later, lookback=1)
"""


def test_a_feature_that_was_dull_on_the_bars_of_its_proof_is_not_judged_when_it_lives_and_then_proven(
    workspace: Workspace, tmp_path: Path
) -> None:
    module, panel, bars = tmp_path / "mine.py", tmp_path / "panel.parquet", daily_bars(460, ("AAA", "BBB"))
    module.write_text(LATER)
    chosen = {"features": FeatureSpec(sets=(), names=("ROC5", "later")), "modules": (str(module),)}
    before_day(bars, 440).write_parquet(panel)
    early = judge_causality(judged(workspace, small_experiment(panel, **chosen)), FEATURES)
    assert (early.proof.holds, early.proof.silent) == (True, ("later",))
    before_day(bars, 450).write_parquet(panel)
    study = judged(workspace, small_experiment(panel, **chosen))
    assert "Not judged: later; of later, it is constant or unknown on the bars" in is_proven(study).open[FEATURES]
    assert "Not judged: later" in unjudged_notes(study)[0]
    later = judge_causality(study, FEATURES)
    assert (later.worked, later.proof.holds, later.proof.silent) == (True, True, ())
    assert "later" in later.proof.proven
    assert not unjudged_notes(study)
    assert not judge_causality(study, FEATURES).worked


LAST = """
import polars as pl

def last(bars):
    there = pl.col("open_time") >= pl.datetime(2022, 3, 19, time_zone="UTC")
    return bars.select("symbol", "open_time", last=pl.when(there).then(pl.col("close")))

features(last, lookback=1)
"""


def test_what_lives_on_the_last_bars_alone_is_not_judged_and_not_tried_again_before_there_are_others(
    workspace: Workspace, tmp_path: Path
) -> None:
    module, panel, bars = tmp_path / "mine.py", tmp_path / "panel.parquet", daily_bars(460, ("AAA", "BBB"))
    module.write_text(LAST)
    chosen = {"features": FeatureSpec(sets=(), names=("ROC5", "last")), "modules": (str(module),)}
    before_day(bars, 440).write_parquet(panel)
    study = judged(workspace, small_experiment(panel, **chosen))
    verdict = judge_causality(study, FEATURES)
    assert [one.feature for one in verdict.proof.unjudged] == ["last"]
    assert "it lives on the last bars alone" in verdict.sentence
    assert set(is_proven(study).open) >= {FEATURES}
    assert not judge_causality(study, FEATURES).worked
    before_day(bars, 442).write_parquet(panel)
    later = judge_causality(judged(workspace, small_experiment(panel, **chosen)), FEATURES)
    assert (later.worked, later.proof.holds) == (True, True)


def test_a_verdict_that_was_stored_before_there_was_a_third_outcome_is_still_read() -> None:
    refuted = [{"feature": "x", "symbol": "A", "time": "2021-01-04T00:00:00Z", "why": "its value changes"}]
    proof = msgspec.convert({"proven": ["a"], "refuted": refuted, "runs": 3, "longer": [], "cross_sectional": []}, Proof)
    assert (proof.unjudged, proof.silent, proof.refuted[0].fails) == ((), (), False)
