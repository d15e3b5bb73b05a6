"""A source whose history changes: what depends on it is computed again, nobody is accused of looking ahead, and it is said."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import START, small_experiment
from tests.study.running import run, worked
from tidemill.domain.experiment import Experiment, FeatureSpec
from tidemill.domain.intervals import Interval
from tidemill.queries.results import study_of
from tidemill.steps.checks.causality import ASSETS, judge_causality
from tidemill.steps.market_data.bars import sync_bars
from tidemill.study.places import report_path
from tidemill.study.workspace import Workspace

DAY = Interval.parse("1d")
CORRECTED = START + timedelta(days=40)


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(
        folder, features=FeatureSpec(sets=(), names=("ROC5", "sma_20", "ema_20", "rsi_14", "roc_10", "natr_14"))
    )


def correct(folder: Path, factor: float = 1.01) -> None:
    """Multiply the prices of AAA on one day of the sample on which causality is proven."""
    file = folder / "base.parquet"
    there = (pl.col("symbol") == "AAA") & (pl.col("date") == CORRECTED.date())
    prices = [
        pl.when(there).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    ]
    pl.read_parquet(file).with_columns(prices).write_parquet(file)


def test_a_corrected_price_is_computed_again_and_accuses_nobody_of_looking_ahead(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    before, _ = run(workspace, experiment)
    first = before.feature_frame
    correct(folder)
    study, reports = run(workspace, experiment)
    assert {"bars", "features", "ridge", "predictions", "backtest"} <= worked(reports)
    assert not study.feature_frame.equals(first)
    verdicts = {asset: judge_causality(study, asset) for asset in ASSETS}
    assert all(verdict.proof.holds for verdict in verdicts.values()), [verdict.sentence for verdict in verdicts.values()]
    assert "sma_20" in verdicts["features/technical"].proof.proven


def test_a_run_says_which_history_was_restated_and_when(workspace: Workspace, experiment: Experiment, folder: Path) -> None:
    run(workspace, experiment)
    correct(folder)
    study, reports = run(workspace, experiment)
    told = [note for note in reports["bars"].notes if "restated" in note]
    assert len(told) == 1
    assert told[0].startswith(
        f"History was restated: 1 bar (AAA), {CORRECTED:%Y-%m-%d}, received on {datetime.now(UTC):%Y-%m-%d}"
    )
    assert told[0] in judge_causality(study, ASSETS[0]).sentence
    assert "History was restated" in report_path(study).read_text()
    # It is said for as long as it is so, not only by the run that noticed.
    assert sync_bars(study_of(workspace, experiment)).notes == reports["bars"].notes


def test_a_run_on_history_that_was_never_corrected_says_nothing_of_it(workspace: Workspace, experiment: Experiment) -> None:
    study, reports = run(workspace, experiment)
    assert not reports["bars"].notes
    assert "restated" not in judge_causality(study, ASSETS[0]).sentence


def test_a_restated_bar_is_known_from_its_receipt_where_one_asks_as_of_and_from_its_close_in_corrected_history(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    study, _ = run(workspace, experiment)
    old, between = study.bars.filter(symbol="AAA", open_time=CORRECTED), datetime.now(UTC)
    correct(folder, 1.5)
    study = study_of(workspace, experiment)
    sync_bars(study)

    def stored(as_of: datetime | None) -> pl.DataFrame:
        bars = workspace.call(workspace.store.read, study.dataset.venue, DAY, symbols=["AAA"], as_of=as_of)
        return bars.filter(open_time=CORRECTED)

    assert study.bars_as_of(between).filter(symbol="AAA", open_time=CORRECTED)["close"].to_list() == old["close"].to_list()
    assert stored(between)["close"].to_list() == old["close"].to_list()
    assert stored(None)["close"][0] == pytest.approx(1.5 * old["close"][0])
    assert stored(None)["known_at"][0] > between
    corrected = study.bars.filter(symbol="AAA", open_time=CORRECTED)
    assert corrected["close"][0] == stored(None)["close"][0]
    assert corrected["known_at"][0] == CORRECTED + DAY.delta
