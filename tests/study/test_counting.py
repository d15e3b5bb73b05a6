"""What the platform counts by itself: the books of a run, backtests; and what trials look like side by side."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from tests.study.panels import daily_bars, day_of, small_experiment
from tests.study.running import run
from tidemill.backtest.result import BacktestResult
from tidemill.domain.errors import InputError, UnavailableError, UnknownNameError
from tidemill.evaluation.backtest import backtest_frame
from tidemill.queries.trials import compare_trials, list_trials, since
from tidemill.steps.performance.skill import evaluate_engines
from tidemill.storage.trials import TrialBatch
from tidemill.study.counting import record_trials, reset
from tidemill.study.metrics import engine_metrics
from tidemill.study.places import report_path
from tidemill.study.sources import study_of
from tidemill.study.workspace import Workspace
from tidemill.validation.overfitting import probability_of_overfitting
from tidemill.validation.sharpe import deflated_sharpe

BOOKS = ["ensemble", "momentum", "ridge"]
START = datetime(2024, 1, 1, tzinfo=UTC)


def sweep(count: int = 20, length: int = 400, seed: int = 1, **changes: object) -> TrialBatch:
    times = pl.Series([START + timedelta(days=day) for day in range(length)], dtype=pl.Datetime("us", "UTC"))
    returns = np.random.default_rng(seed).normal(0.0, 0.01, (length, count))
    batch = TrialBatch(
        experiment="sweep",
        kind="sweep",
        family="made.1d",
        universe="made.1d.all",
        data_version="d",
        label="none",
        engines=["sma_cross"] * count,
        configs=[{"fast": at} for at in range(count)],
        times=times,
        returns=returns,
        periods_per_year=252.0,
    )
    return msgspec.structs.replace(batch, **changes)


@pytest.mark.finished
def test_a_run_counts_each_book_once_and_a_rerun_none(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder)
    study, _ = run(workspace, experiment)
    trials = workspace.call(list_trials, workspace.database)
    assert sorted(trials["engine"]) == BOOKS
    assert trials["kind"].unique().to_list() == ["run"]
    run(workspace, experiment)
    run(workspace, msgspec.structs.replace(experiment, name="another name", benchmark="AAA"))
    assert workspace.call(list_trials, workspace.database).height == 3
    shown = engine_metrics(study.lake, study.key).select("book", "sharpe").sort("book")
    assert trials.sort("engine")["sharpe"].to_list() == pytest.approx(shown["sharpe"].to_list())


@pytest.mark.finished
def test_other_costs_other_parameters_and_new_data_are_new_trials(
    workspace: Workspace, folder: Path, panel: pl.DataFrame
) -> None:
    experiment = small_experiment(folder)
    run(workspace, experiment)
    dearer = msgspec.structs.replace(experiment, costs=msgspec.structs.replace(experiment.costs, fee_bps=9.0))
    run(workspace, dearer)
    assert workspace.call(list_trials, workspace.database).height == 6
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    study, _ = run(workspace, experiment)
    assert workspace.call(list_trials, workspace.database).height == 9
    row = engine_metrics(study.lake, study.key).row(0, named=True)
    assert row["trials"] == 9
    assert row["trial_clusters"] <= 6  # the same configuration on one day more is no other idea


@pytest.mark.finished
def test_a_trial_elsewhere_on_the_same_source_changes_what_a_result_is_worth(workspace: Workspace, folder: Path) -> None:
    study, _ = run(workspace, small_experiment(folder))
    before = engine_metrics(study.lake, study.key).row(0, named=True)
    other = sweep(40, family=study.dataset.bars_key, universe=study.dataset.key)
    record_trials(workspace, other)
    again = study_of(workspace, study.experiment)
    assert evaluate_engines(again).worked
    after = engine_metrics(again.lake, again.key).row(0, named=True)
    assert (before["trials"], after["trials"]) == (3, 43)
    assert after["ic"] == before["ic"]
    assert not evaluate_engines(study_of(workspace, study.experiment)).worked


@pytest.mark.finished
def test_a_reset_ledger_counts_the_books_again_and_says_since_when(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder)
    run(workspace, experiment)
    begun = reset(workspace, "a new question")
    assert begun.forgotten == 3
    assert workspace.call(since, workspace.database) == begun
    study, _ = run(workspace, experiment)
    assert workspace.call(list_trials, workspace.database).height == 3
    assert engine_metrics(study.lake, study.key)["counted_since"][0] == begun.since
    assert f"since {begun.since:%Y-%m-%d}" in report_path(study).read_text()


def test_trials_are_deflated_by_all_on_their_source_and_overfitted_among_themselves(workspace: Workspace) -> None:
    batch = sweep()
    ids = record_trials(workspace, batch).trial_ids
    record_trials(workspace, sweep(30, seed=2, configs=[{"slow": at} for at in range(30)], experiment="other"))
    found = workspace.call(compare_trials, workspace.database, workspace.lake, (), experiment="sweep")
    rows = {row.trial: row for row in found.rows}
    assert set(rows) == set(ids)
    assert (found.counted, found.clusters, found.pbo_trials, found.pbo_blocks) == (50, 50, 20, 16)
    assert found.pbo == pytest.approx(probability_of_overfitting(batch.returns).pbo)
    sharpes = np.array(workspace.call(list_trials, workspace.database)["sharpe"].to_list()) / np.sqrt(252.0)
    first = batch.returns[:, 0]
    centred = (first - first.mean()) / first.std()
    expected = deflated_sharpe(
        first.mean() / first.std(ddof=1),
        400,
        variance=float(sharpes.var(ddof=1)),
        trials=50,
        skew=float((centred**3).mean()),
        kurtosis=float((centred**4).mean()),
    )
    row = rows[ids[0]]
    assert row.deflated_sharpe == pytest.approx(expected)
    assert row.sharpe_low < row.sharpe < row.sharpe_high
    two = workspace.call(compare_trials, workspace.database, workspace.lake, ids[:2])
    assert (two.counted, two.pbo_trials) == (50, 2)


def test_noise_is_not_called_skill_however_good_its_best_looks(workspace: Workspace) -> None:
    record_trials(workspace, sweep(200, seed=3))
    found = workspace.call(compare_trials, workspace.database, workspace.lake, (), experiment="sweep")
    best = max(found.rows, key=lambda row: row.sharpe)
    assert best.sharpe > 1.5
    assert best.deflated_sharpe < 0.9
    assert found.pbo is not None
    assert found.pbo > 0.2


def test_what_cannot_be_compared_says_why(workspace: Workspace) -> None:
    ids = record_trials(workspace, sweep(2)).trial_ids
    elsewhere = record_trials(workspace, sweep(1, family="made.1h", universe="made.1h.all")).trial_ids
    with pytest.raises(InputError, match="different sources"):
        workspace.call(compare_trials, workspace.database, workspace.lake, (ids[0], elsewhere[0]))
    with pytest.raises(UnknownNameError, match="no trial named"):
        workspace.call(compare_trials, workspace.database, workspace.lake, ("nothing",))
    with pytest.raises(UnknownNameError, match="no experiment"):
        workspace.call(compare_trials, workspace.database, workspace.lake, (), experiment="nobody's")
    with pytest.raises(InputError, match="ids"):
        workspace.call(compare_trials, workspace.database, workspace.lake, ())
    alone = workspace.call(compare_trials, workspace.database, workspace.lake, ids[:1])
    assert (alone.pbo, alone.pbo_trials) == (None, None)


def frame(days: int = 120, symbols: tuple[str, ...] = ("AAA", "BBB")) -> pl.DataFrame:
    bars = daily_bars(days, symbols)
    times = pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time")
    return bars.select("symbol", times, pl.exclude("symbol", "date"))


def traded(
    ledger: Callable[[], AbstractContextManager[Workspace]], bars: pl.DataFrame, fee_bps: float = 5.0, **params: int
) -> BacktestResult:
    return backtest_frame(bars, None, strategy="sma_cross", params=params, fee_bps=fee_bps, slippage_bps=0.0, ledger=ledger)


def test_backtests_are_counted_by_configuration_and_data(workspace: Workspace) -> None:
    def ledger() -> AbstractContextManager[Workspace]:
        return nullcontext(workspace)

    first = traded(ledger, frame(), fast=3, slow=9)
    assert first.trial is not None
    assert traded(ledger, frame(), slow=9, fast=3).trial == first.trial
    others = [
        traded(ledger, frame(), fast=4, slow=9),
        traded(ledger, frame(), fee_bps=6.0, fast=3, slow=9),
        traded(ledger, frame(119), fast=3, slow=9),
        traded(ledger, frame(symbols=("AAA",)), fast=3, slow=9),
    ]
    assert len({first.trial, *(other.trial for other in others)}) == 5
    trials = workspace.call(list_trials, workspace.database)
    assert trials.height == 5
    assert trials["family"].n_unique() == 2  # other symbols are no competition
    weights = pl.DataFrame({"symbol": ["AAA"], "open_time": [frame()["open_time"][2]], "weight": [0.5]})
    own = backtest_frame(
        frame(), weights, strategy=None, params={}, fee_bps=5.0, slippage_bps=0.0, ledger=lambda: nullcontext(workspace)
    )
    assert own.trial is not None
    assert workspace.call(list_trials, workspace.database)["engine"].to_list()[-1] == "weights"
    stored = workspace.call(compare_trials, workspace.database, workspace.lake, (first.trial,))
    assert stored.rows[0].observations == first.returns.height


def test_a_backtest_that_cannot_be_counted_says_so(workspace: Workspace) -> None:
    def unreachable() -> AbstractContextManager[Workspace]:
        raise UnavailableError("Postgres does not answer.")

    result = traded(unreachable, frame(), fast=3, slow=9)
    assert result.trial is None
    assert any("not counted" in note and "does not answer" in note for note in result.notes)
    assert backtest_frame(frame(), None, strategy="sma_cross", params={}, fee_bps=0.0, slippage_bps=0.0).trial is None
