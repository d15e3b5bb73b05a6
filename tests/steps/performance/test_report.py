"""What a run's report and its closing sentences say beside the figures."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import START, SYMBOLS, daily_bars, small_experiment
from tests.study.running import run
from tidemill.calendars import XNYS, calendar_named
from tidemill.domain.experiment import NeutraliseSpec, SplitSpec, StrategySpec
from tidemill.domain.intervals import Interval
from tidemill.experiments.tracked import id_of
from tidemill.queries.results import result_of
from tidemill.reports.numbers import percent
from tidemill.study.book import benchmark_book, book
from tidemill.study.book import tested as out_of_sample
from tidemill.study.deciders import terms_of
from tidemill.study.rejections import tradable
from tidemill.study.scheduled import book_by
from tidemill.study.scoring import predicted_by
from tidemill.study.tables import ENSEMBLE
from tidemill.study.workspace import Workspace


def test_a_book_that_neutrality_closed_is_told_by_the_run_and_by_its_report(workspace: Workspace, tmp_path: Path) -> None:
    """Each symbol is alone in its sector, so no sector has two sides."""
    path = tmp_path / "stocks.parquet"
    sessions = calendar_named(XNYS).slots(Interval.parse("1d"), START, START + timedelta(days=330)).cast(pl.Date)
    daily_bars(330).filter(pl.col("date").is_in(sessions.implode())).write_parquet(path)
    alone = NeutraliseSpec(by="sector", sectors={symbol: symbol for symbol in SYMBOLS})
    experiment = small_experiment(
        path, strategy=StrategySpec(params={"every": 10}, neutralise=alone), splits=SplitSpec(train=80, test=25)
    )
    study, reports = run(workspace, experiment)
    assert study.lake.scan("trades", study.key, partitions=["ensemble"]).collect().is_empty()
    told = "times a sector was closed, since one of its sides alone cannot be neutral."
    assert any(note.startswith("ensemble: ") and note.endswith(told) for note in reports["signals"].notes)
    found = workspace.call(result_of, workspace.settings, experiment)
    assert [sentence for sentence in found.sentences if sentence.endswith(told)] != []
    page = found.path.read_text()
    assert page.count(told) == 1, "in the first paragraph"
    assert page.index(told) < page.index("<h2>")
    again = book(study, tradable(study, ENSEMBLE, predicted_by(study, ENSEMBLE)), out_of_sample(study))
    by_chain = book_by(study, terms_of(study, id_of(experiment), ENSEMBLE))
    assert again.notes[0].endswith(told)
    assert by_chain.notes == again.notes


def test_a_source_most_of_whose_rows_are_refused_is_told_first(workspace: Workspace, folder: Path) -> None:
    file = folder / "base.parquet"
    bars = pl.read_parquet(file)
    broken = pl.col("symbol").is_in(["EEE", "FFF"]) & (pl.col("date").dt.day() > 1)
    bars.with_columns(pl.when(broken).then(-1.0).otherwise("close").alias("close")).write_parquet(file)
    experiment = small_experiment(folder)
    run(workspace, experiment)
    found = workspace.call(result_of, workspace.settings, experiment)
    assert found.sentences[0].startswith("636 rows of the source were refused, beside 1,332 bars (")
    assert "<code>tidemill data quarantine</code>" in found.path.read_text()


def test_a_benchmark_that_could_not_be_bought_in_full_is_told_with_what_was_bought(workspace: Workspace, folder: Path) -> None:
    file = folder / "base.parquet"
    pl.read_parquet(file).with_columns(pl.lit(500.0).alias("volume")).write_parquet(file)
    study, _ = run(workspace, small_experiment(folder))
    found = workspace.call(result_of, workspace.settings, study.experiment)
    said = " ".join(found.sentences)
    bought = benchmark_book(study, out_of_sample(study)).fills
    share = (bought["quantity"] * bought["price"]).sum() / study.experiment.costs.capital
    assert share < 0.05
    assert f"Only {percent(share)} of the benchmark's capital was invested: it is bought once" in said


@pytest.mark.finished
def test_the_report_names_the_experiment_as_its_list_does(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder)
    found = workspace.call(result_of, workspace.settings, experiment)
    page = found.path.read_text()
    assert f"<td>{id_of(experiment)}</td>" in page
    assert "How the symbols of this dataset were chosen is not known here" in page
    assert "of the benchmark's capital was invested" not in page, "all of it was"
