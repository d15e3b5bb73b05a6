"""The steps of the graph in order: what is done, what is not done again, and that nothing in sample is ever scored."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.study.panels import START, before_day, day_of, small_experiment
from tests.study.running import STEPS, run, worked
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import DatasetSpec, Experiment, StrategySpec
from tidemill.features.api import compute
from tidemill.metrics.predictions import information_coefficients, scored
from tidemill.queries.models import model_details, stored_models
from tidemill.queries.results import latest_result, result_of
from tidemill.steps.features import technical
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.predictions.engines import predict
from tidemill.study.freshness import StepReport
from tidemill.study.metrics import engine_metrics
from tidemill.study.model_index import models_home, read_index, spec_of
from tidemill.study.places import report_path
from tidemill.study.scoring import coefficients_of, predictions_of, scored_rows
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder)


def test_a_second_run_with_nothing_new_does_no_work(workspace: Workspace, experiment: Experiment) -> None:
    _, first = run(workspace, experiment)
    _, second = run(workspace, experiment)
    assert worked(first) == set(STEPS) - {"instruments", "gaps"}
    assert worked(second) == set()
    assert {name: report.data_version for name, report in first.items()} == {
        name: report.data_version for name, report in second.items()
    }


@pytest.mark.finished
def test_every_prediction_is_out_of_sample(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    for engine in ("momentum", "ridge", "ensemble"):
        frame = predictions_of(study, engine)
        for fold in study.folds:
            own = frame.filter(pl.col("fold") == fold.number)
            assert own["open_time"].min() >= fold.test_start > fold.train_end
            assert own["open_time"].max() < fold.test_end
    index = read_index(models_home(workspace), study.engine_key(spec_of(study, "ridge")))
    assert index is not None
    for entry, fold in zip(index.folds, study.folds, strict=True):
        assert entry.end < fold.train_end.isoformat()


@pytest.mark.finished
def test_books_share_the_search_for_labels_and_are_scored_as_each_would_be_alone(
    workspace: Workspace, experiment: Experiment
) -> None:
    study, _ = run(workspace, experiment)
    fresh = study_of(workspace, experiment)
    labels = study.lake.scan("labels", study.labels_key).collect()
    for book in ("ridge", "ensemble", "momentum"):
        alone = scored(predictions_of(study, book), labels)
        assert scored_rows(fresh, book).equals(alone, null_equal=True)
        assert coefficients_of(fresh, book).equals(information_coefficients(alone), null_equal=True)


@pytest.mark.finished
def test_a_new_day_costs_one_month_of_features_one_fold_and_no_training(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    run(workspace, experiment)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    study, reports = run(workspace, experiment)
    assert study.folds[-1].test_end > study.folds[-1].test_start
    assert reports["features"].facts.months_computed == 1
    assert not {"momentum", "ridge", "ensemble"} & worked(reports)
    assert reports["predictions"].facts.folds_scored == 2  # the last fold of each of the two engines
    assert reports["bars"].facts.imported.rows == 6  # only the new file was read


def test_every_further_day_of_a_month_resumes_from_the_state_before_it(
    workspace: Workspace, tmp_path: Path, panel: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = tmp_path / "days", list[Sequence[str]]()
    folder.mkdir()
    before_day(panel, 325).write_parquet(folder / "base.parquet")
    feature_inputs = technical.feature_inputs
    monkeypatch.setattr(
        technical, "feature_inputs", lambda study, months, chosen: read.append(months) or feature_inputs(study, months, chosen)
    )
    for day in range(325, 330):
        study = study_of(workspace, small_experiment(folder))
        sync_bars(study)
        compute_features(study)
        day_of(panel, day).write_parquet(folder / f"day{day}.parquet")
    assert [list(months) for months in read[2:]] == [["2021-11"]] * 4


@pytest.mark.finished
def test_what_grew_day_by_day_equals_what_is_made_at_once(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame, tmp_path: Path
) -> None:
    run(workspace, experiment)
    for day in (328, 329):
        day_of(panel, day).write_parquet(folder / f"day{day}.parquet")
        grown, _ = run(workspace, experiment)
    whole = tmp_path / "whole"
    whole.mkdir()
    panel.write_parquet(whole / "all.parquet")
    once, _ = run(workspace, small_experiment(whole))
    assert grown.feature_frame.equals(once.feature_frame, null_equal=True)
    for table in ("signals", "equity", "trades", "attribution"):
        for book in ("ensemble", "momentum", "ridge"):
            made, expected = (study.lake.scan(table, study.key, partitions=[book]).collect() for study in (grown, once))
            assert expected.height > 0
            assert made.equals(expected, null_equal=True), (table, book)


def _with_holes(panel: pl.DataFrame) -> pl.DataFrame:
    """One symbol halts for months, one is listed late, one dies."""
    days = (pl.col("date") - START.date()).dt.total_days()
    lost = (
        ((pl.col("symbol") == "BBB") & days.is_between(180, 310))
        | ((pl.col("symbol") == "CCC") & (days < 318))
        | ((pl.col("symbol") == "DDD") & (days > 295))
    )
    return panel.filter(~lost)


@pytest.mark.parametrize("symbols", [(), pytest.param(("AAA", "EEE"), marks=pytest.mark.long)])
def test_labels_that_grew_day_by_day_equal_those_computed_at_once(
    workspace: Workspace, panel: pl.DataFrame, tmp_path: Path, symbols: tuple[str, ...]
) -> None:
    bars = _with_holes(panel)
    folder, whole = tmp_path / "grown", tmp_path / "whole"
    for path in (folder, whole):
        path.mkdir()

    def built(path: Path) -> tuple[Study, StepReport[Any]]:
        study = study_of(
            workspace, small_experiment(path, dataset=DatasetSpec(source=f"file:{path}", symbols=symbols, start="2021-02-10"))
        )
        sync_bars(study)
        return study, build_training_set(study)

    before_day(bars, 298).write_parquet(folder / "base.parquet")
    built(folder)
    correction = day_of(bars, 120).with_columns(pl.col("open", "high") * 1.01)
    parts = {"correction": correction} | {f"day{day}": day_of(bars, day) for day in range(298, 330)}
    for name, part in parts.items():
        part.write_parquet(folder / f"{name}.parquet")
        study, report = built(folder)
        assert report.worked
    assert not built(folder)[1].worked
    pl.concat([bars.filter(pl.col("date") != correction["date"][0]), correction]).write_parquet(whole / "all.parquet")
    other, _ = built(whole)
    grown = study.lake.scan("labels", study.labels_key).sort("symbol", "open_time").collect()
    assert grown.equals(other.lake.scan("labels", other.labels_key).sort("symbol", "open_time").collect(), null_equal=True)


@pytest.mark.finished
def test_a_new_day_leaves_the_labels_of_old_months_alone(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    study, _ = run(workspace, experiment)
    before = study.lake.manifests("labels", study.labels_key)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    study, _ = run(workspace, experiment)
    after = study.lake.manifests("labels", study.labels_key)
    # October is computed with it, since the labels of its last bars could end in the month that changed; they do not.
    assert {month for month in after if after[month] != before.get(month)} == {"2021-11"}


@pytest.mark.finished
def test_labels_of_an_earlier_home_are_made_again(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    key, whole = study.labels_key, study.lake.scan("labels", study.labels_key).collect()
    for month in study.lake.manifests("labels", key):
        rows = study.lake.scan("labels", key, partitions=[month]).collect()
        # Each month carried what all were built from, and of its bars the version and how many there were.
        study.lake.write("labels", key, month, rows, metadata={"built": "a", "rules": "b", "bars": ["c", 1_000]})
    assert build_training_set(study_of(workspace, experiment)).worked
    assert study.lake.scan("labels", key).collect().equals(whole, null_equal=True)


@pytest.mark.finished
def test_a_restated_bar_computes_its_month_and_every_later_one_again(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    study, _ = run(workspace, experiment)
    months = sorted(study.lake.manifests("features", study.features_key))
    old = day_of(panel, 40).filter(pl.col("symbol") == "AAA")
    old.with_columns(pl.col("volume") * 3.0, (pl.col("high") * 1.01)).write_parquet(folder / "correction.parquet")
    _, reports = run(workspace, experiment)
    month = f"{old['date'][0]:%Y-%m}"
    assert reports["features"].facts.months_computed >= len(months) - months.index(month)
    assert "ridge" in worked(reports)


@pytest.mark.finished
def test_a_changed_library_computes_again(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(workspace, experiment)
    monkeypatch.setattr(technical, "library_version", lambda name: "another")
    _, reports = run(workspace, experiment)
    assert "features" in worked(reports)
    assert reports["features"].data_version  # the same bits: nothing after it has to be done again
    assert "ridge" not in worked(reports)


@pytest.mark.finished
def test_a_damaged_state_costs_time_and_nothing_else(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    study, _ = run(workspace, experiment)
    states = list((workspace.settings.home / "state" / study.features_key).glob("*.state"))
    assert states
    for state in states:
        state.write_bytes(b"not a state")
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    study, reports = run(workspace, experiment)
    whole, _ = compute(study.adjusted, study.features)
    assert reports["features"].rows == 6 * 329
    assert study.feature_frame.equals(whole, null_equal=True)


@pytest.mark.finished
def test_a_change_of_costs_trains_nothing_again(workspace: Workspace, experiment: Experiment) -> None:
    import msgspec

    plain, _ = run(workspace, experiment)
    dearer = msgspec.structs.replace(experiment, costs=msgspec.structs.replace(experiment.costs, fee_bps=50.0))
    study, reports = run(workspace, dearer)
    assert worked(reports) == {"signals", "backtest", "skill", "portfolio", "report"}
    cheap = engine_metrics(plain.lake, plain.key).filter(pl.col("book") == "ridge").row(0, named=True)
    dear = engine_metrics(study.lake, study.key).filter(pl.col("book") == "ridge").row(0, named=True)
    assert dear["fees"] > 5 * cheap["fees"]
    assert dear["sharpe"] < cheap["sharpe"]
    assert dear["ic"] == cheap["ic"]


@pytest.mark.finished
def test_noise_has_no_skill_and_the_report_says_what_came_out(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    row = engine_metrics(study.lake, study.key).filter(pl.col("book") == "ensemble").row(0, named=True)
    assert abs(row["t_stat"]) < 4.0
    text = report_path(study).read_text()
    assert "After all costs" in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://creativecommons.org", "").replace(
        "http://purl.org", ""
    )


@pytest.mark.finished
def test_results_name_every_book_and_the_latest_result_is_found(workspace: Workspace, experiment: Experiment) -> None:
    run(workspace, experiment)
    result = workspace.call(result_of, workspace.settings, experiment)
    assert [one.book for one in result.books] == ["ensemble", "momentum", "ridge"]
    assert len(result.metrics["ensemble"]) == 15
    latest = workspace.call(latest_result, workspace.settings)
    assert latest is not None
    assert latest.path == result.path


def test_a_result_that_is_not_there_says_what_to_run(workspace: Workspace, experiment: Experiment) -> None:
    with pytest.raises(InputError, match="tidemill run"):
        workspace.call(result_of, workspace.settings, experiment)
    assert workspace.call(latest_result, workspace.settings) is None


@pytest.mark.finished
def test_models_are_listed_with_their_lineage(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    rows = workspace.call(stored_models, workspace.settings)
    assert {row.engine for row in rows} == {"momentum", "ridge", "ensemble"}
    ridge = next(row for row in rows if row.engine == "ridge")
    found = workspace.call(model_details, workspace.settings, ridge.model_id)
    assert found.inputs.feature_fingerprint == study.features.fingerprint
    assert found.inputs.data_versions
    with pytest.raises(UnknownNameError, match="models list"):
        workspace.call(model_details, workspace.settings, "../../etc")


@pytest.mark.finished
def test_a_poisoned_artifact_is_refused_when_it_is_used(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    ridge = next(row for row in workspace.call(stored_models, workspace.settings) if row.engine == "ridge")
    folder = models_home(workspace) / "artifacts" / ridge.model_id
    (folder / "weights.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n")
    from tidemill.domain.errors import IntegrityError

    with pytest.raises(IntegrityError, match="refused"):
        workspace.call(model_details, workspace.settings, ridge.model_id)
    assert study.folds


def test_predictions_before_training_say_what_is_missing(workspace: Workspace, experiment: Experiment) -> None:
    study = study_of(workspace, experiment)
    sync_bars(study)
    compute_features(study)
    build_training_set(study)
    with pytest.raises(UnknownNameError, match="Materialize models/momentum"):
        predict(study)


@pytest.mark.finished
def test_a_strategy_over_bars_trades_only_the_tested_range(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder, strategy=StrategySpec(name="sma_cross", params={"fast": 3, "slow": 8}))
    study, reports = run(workspace, experiment)
    assert reports["backtest"].worked
    signals = study.lake.scan("signals", study.key, partitions=["ensemble"]).collect()
    assert signals["open_time"].min() >= study.folds[0].test_start


@pytest.mark.finished
def test_an_unknown_benchmark_is_an_error_that_names_the_choices(workspace: Workspace, folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="equal_weight"):
        run(workspace, small_experiment(folder, benchmark="ZZZ"))


def test_a_last_bar_on_the_last_day_of_a_month_is_scored(workspace: Workspace, tmp_path: Path, panel: pl.DataFrame) -> None:
    # The last test window then ends in a month that has no bar and no partition.
    folder = tmp_path / "months_end"
    folder.mkdir()
    panel.filter(pl.col("date") <= date(2021, 10, 31)).write_parquet(folder / "bars.parquet")
    study, reports = run(workspace, small_experiment(folder))
    assert f"{study.folds[-1].test_end:%Y-%m}" == "2021-11"
    assert reports["predictions"].worked
