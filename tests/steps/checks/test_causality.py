"""A study's features, predictions and signals are judged once for each definition, and what leaks is refused."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tests.study.changed_code import change_line
from tests.study.panels import START, daily_bars, day_of, small_experiment
from tests.study.running import STEPS, run
from tidemill.domain.errors import UnavailableError
from tidemill.domain.experiment import Experiment, FeatureSpec, StrategySpec
from tidemill.domain.intervals import Interval
from tidemill.evaluation import streaming as stream_proof
from tidemill.evaluation.proving import prove_all, prove_on_bars
from tidemill.evaluation.refitting import prove_predictions
from tidemill.features.api import FeatureSet, feature_set
from tidemill.market.fear_greed import DELAY
from tidemill.models import ridge
from tidemill.models.artifact import Artifact
from tidemill.models.base import Lineage
from tidemill.steps.checks import samples as proof_samples
from tidemill.steps.checks.causality import ASSETS, FEATURES, PREDICTIONS, SIGNALS, definition, is_proven, judge_causality
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.market_data.fear_greed import sync_fear_greed
from tidemill.study.sources import study_of, suspected_actions
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder)


@pytest.fixture
def study(workspace: Workspace, experiment: Experiment) -> Study:
    return run(workspace, experiment)[0]


@pytest.mark.finished
def test_everything_that_ships_is_proven_and_judged_once(
    workspace: Workspace, experiment: Experiment, study: Study, folder: Path, panel: pl.DataFrame
) -> None:
    standing = is_proven(study)
    assert not standing
    assert set(standing.open) == set(ASSETS)
    first = {asset: judge_causality(study, asset) for asset in ASSETS}
    assert all(judged.worked and judged.proof.holds for judged in first.values()), first
    assert {*study.features.names, "adjusted close"} <= set(first[FEATURES].proof.proven)
    assert set(first[PREDICTIONS].proof.proven) == {"momentum", "ridge"}
    assert set(first[SIGNALS].proof.proven) == {"quantile", "ensemble weights"}
    assert is_proven(study)
    # One more day: nothing is judged again, nothing of the definition changed.
    day_of(panel, 328).write_parquet(folder / "day.parquet")
    later = study_of(workspace, experiment)
    for step in STEPS.values():
        step(later)
    assert is_proven(later)
    again = {asset: judge_causality(later, asset) for asset in ASSETS}
    assert [judged.worked for judged in again.values()] == [False] * len(ASSETS)
    assert {asset: judged.proof for asset, judged in again.items()} == {asset: judged.proof for asset, judged in first.items()}


@pytest.mark.finished
def test_another_strategy_is_judged_anew_and_the_features_are_not(
    workspace: Workspace, experiment: Experiment, study: Study
) -> None:
    for asset in ASSETS:
        judge_causality(study, asset)
    other = study_of(workspace, msgspec.structs.replace(experiment, strategy=StrategySpec(name="sma_cross")))
    assert {asset: definition(other, asset) == definition(study, asset) for asset in ASSETS} == {
        FEATURES: True,
        PREDICTIONS: True,
        SIGNALS: False,
    }
    assert set(is_proven(other).open) == {SIGNALS}


@pytest.mark.parametrize(
    ("module", "judged_anew"),
    [
        ("tidemill.market.news_feeds", set()),
        ("tidemill.market.binance", set()),
        ("tidemill.storage.postgres", set()),
        ("tidemill.market.fear_greed", {FEATURES, PREDICTIONS}),
        ("tidemill.validation.labels", {PREDICTIONS}),
        ("tidemill.models.ridge", {PREDICTIONS}),
        ("tidemill.strategies.quantile", {SIGNALS}),
        ("tidemill.study.weighing", {SIGNALS}),
    ],
)
def test_what_is_judged_anew_after_a_changed_line_is_what_it_computes(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, module: str, judged_anew: set[str]
) -> None:
    study = study_of(workspace, experiment)
    before = {asset: definition(study, asset) for asset in ASSETS}
    change_line(monkeypatch, module)
    assert {asset for asset in ASSETS if definition(study, asset) != before[asset]} == judged_anew


@pytest.mark.finished
def test_history_that_is_restated_in_the_sample_is_judged_anew(study: Study) -> None:
    before = definition(study, FEATURES)
    key, month = study.dataset.bars_key, "2021-02"
    frame = study.lake.scan("bars", key, partitions=[month]).collect()
    study.lake.write("bars", key, month, frame.with_columns(pl.col("close") * 1.5))
    assert definition(study, FEATURES) != before


@pytest.mark.finished
def test_a_fit_that_peeks_beyond_its_fold_is_refused_and_not_promotable(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split gives the whole frame, test window and all: the label of the last rows changes with later bars."""
    monkeypatch.setattr(proof_samples, "training_rows", lambda frame, fold: frame)
    judged = judge_causality(study, PREDICTIONS)
    assert {one.feature for one in judged.proof.refuted} == {"momentum", "ridge"}
    assert "is another one when it is fitted without bars after that" in judged.sentence
    for asset in (FEATURES, SIGNALS):
        judge_causality(study, asset)
    assert set(is_proven(study).open) == {PREDICTIONS}
    assert "look ahead" in is_proven(study).open[PREDICTIONS]


@pytest.mark.finished
def test_an_engine_that_scores_with_the_next_row_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = type(ridge.ENGINE).predict

    def peeking(self: Any, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        return honest(self, artifact, frame, start=start).with_columns(pl.col("prediction").shift(-1).over("symbol"))

    monkeypatch.setattr(type(ridge.ENGINE), "predict", peeking)
    assert [one.feature for one in judge_causality(study, PREDICTIONS).proof.refuted] == ["ridge"]


@pytest.mark.finished
def test_a_strategy_that_counts_symbols_that_are_not_listed_yet_is_refused(
    workspace: Workspace, experiment: Experiment, study: Study, tmp_path: Path
) -> None:
    """Every symbol of this panel is there from the start; the sample of the proof holds one that is listed later."""
    module = tmp_path / "mine.py"
    module.write_text(
        "import polars as pl\n"
        "def shared_out(frame):\n"
        "    return frame.select('symbol', 'open_time', weight=pl.lit(1.0) / frame['symbol'].n_unique())\n"
        "strategy('shared_out', shared_out, needs='bars')\n"
        "strategy('shared_scores', shared_out)\n"
    )
    for name in ("shared_out", "shared_scores"):
        chosen = {"strategy": StrategySpec(name=name), "modules": (str(module),)}
        other = study_of(workspace, msgspec.structs.replace(experiment, **chosen))
        assert [found.feature for found in judge_causality(other, SIGNALS).proof.refuted] == [name]


@pytest.fixture
def moody(workspace: Workspace, folder: Path, tmp_path: Path) -> Study:
    """A study of features beside the Fear & Greed Index, as far as they are computed."""
    path = tmp_path / "index.csv"
    lines = [f"{(START + timedelta(days=day)):%Y-%m-%d},{(day * 7) % 101}" for day in range(-10, 330)]
    path.write_text("date,value\n" + "\n".join(lines) + "\n")
    spec = FeatureSpec(sets=(), names=("ROC5",), fear_greed=f"file:{path}")
    made = study_of(workspace, small_experiment(folder, features=spec))
    for step in (sync_bars, sync_fear_greed, compute_features):
        step(made)
    return made


def test_the_index_beside_bars_is_proven_and_a_join_on_its_stamp_is_not(moody: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = {"joined fear_greed", "joined fear_greed_change_7"}
    assert joined <= set(judge_causality(moody, FEATURES).proof.proven)
    honest = proof_samples.join_known

    def on_stamp(bars: pl.DataFrame, index: pl.DataFrame, interval: Interval) -> pl.DataFrame:
        return honest(bars, index.with_columns(pl.col("known_at") - DELAY), interval)

    monkeypatch.setattr(proof_samples, "join_known", on_stamp)
    assert {one.feature for one in proof_samples.prove_index(moody).refuted} == joined


@pytest.mark.finished
def test_every_fold_refitted_on_what_was_known_is_the_stored_model(study: Study) -> None:
    proof = prove_predictions(study)
    assert proof.proven == ("momentum", "ridge")
    assert proof.runs > 2 * len(study.folds)


@pytest.mark.finished
def test_a_stored_model_that_saw_more_than_its_fold_is_refuted(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the run are honest; the refit is not, so that the two cannot agree."""
    honest = type(ridge.ENGINE).fit

    def other(self: Any, training: pl.DataFrame, *, params: Mapping[str, Any], lineage: Lineage, **rest: Any) -> Artifact:
        return honest(self, training, params={**params, "penalty": 7.5}, lineage=lineage, **rest)

    monkeypatch.setattr(type(ridge.ENGINE), "fit", other)
    assert [one.feature for one in prove_predictions(study).refuted] == ["ridge"]


def test_labels_across_a_suspected_corporate_action_accuse_no_engine(
    workspace: Workspace, panel: pl.DataFrame, tmp_path: Path
) -> None:
    """The run leaves such labels out; whoever fits its models again does so too, or none of them would be the stored one."""
    halved = (pl.col("symbol") == "AAA") & (pl.col("date") >= (START + timedelta(days=60)).date())
    prices = [pl.when(halved).then(pl.col(name) * 0.4).otherwise(pl.col(name)) for name in ("open", "high", "low", "close")]
    panel.with_columns(prices).write_parquet(tmp_path / "halved.parquet")
    study, _ = run(workspace, small_experiment(tmp_path / "halved.parquet"))
    assert suspected_actions(study).rows() == [("AAA", START + timedelta(days=60))]
    assert prove_predictions(study).proven == ("momentum", "ridge")
    assert judge_causality(study, PREDICTIONS).proof.holds


# --- streaming ------------------------------------------------------------------------------------------------------------


def test_streaming_in_fresh_processes_gives_the_bits_of_the_batch() -> None:
    bars = random_panel(4, symbols=4, slots=120)
    chosen = feature_set("ema_20", "rsi_14", "CORR10", "obv", "cs_rank_roc_5", "sar")
    proof = stream_proof.prove_streaming(chosen, bars, processes=3)
    assert proof.proven == chosen.names


def test_a_stream_that_forgets_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state between two processes is lost: what needs no past holds, what needs it does not."""
    honest = stream_proof._in_a_process
    monkeypatch.setattr(stream_proof, "_in_a_process", lambda task: honest(msgspec.structs.replace(task, state=b"")))
    bars = random_panel(4, symbols=2, slots=60, absent=0.0, missing=0.0)
    proof = stream_proof.prove_streaming(feature_set("ema_20", "KMID"), bars)
    assert proof.proven == ("KMID",)
    assert [one.feature for one in proof.refuted] == ["ema_20"]


def test_a_process_that_dies_says_so() -> None:
    nothing = FeatureSet(feature_set("ema_20").features)
    nothing.__dict__["names"] = ("no_such_feature",)
    with pytest.raises(UnavailableError, match="no_such_feature"):
        stream_proof.prove_streaming(nothing, random_panel(4, symbols=2, slots=60))


# --- by name and by function ------------------------------------------------------------------------------------------------


def test_names_and_functions_are_proven_together() -> None:
    bars = random_panel(2, symbols=3, slots=90)

    def ahead(bars: pl.DataFrame) -> pl.DataFrame:
        return bars.select("symbol", "open_time", peek=pl.col("close").shift(-2).over("symbol"))

    proof = prove_all(bars, ["KMID", "ema_20", ahead], lookback=1)
    assert proof.proven == ("KMID", "ema_20")
    assert [one.feature for one in proof.refuted] == ["peek"]


def test_proof_of_the_standing_features_of_a_file_of_bars() -> None:
    bars = daily_bars(150, ("AAA", "BBB"))
    frame = bars.with_columns(open_time=pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")).drop("date")
    chosen = feature_set("rsi_14", "weekday", "cs_rank_roc_5")
    proof = prove_on_bars(chosen, frame)
    assert proof.proven == chosen.names
    assert proof.cross_sectional == ("cs_rank_roc_5",)
    assert np.isfinite(proof.runs)
