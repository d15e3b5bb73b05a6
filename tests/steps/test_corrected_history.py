"""A source whose history changes: what depends on it is computed again, nobody is accused of looking ahead, and it is said."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.study.panels import START, small_experiment
from tests.study.running import run, worked
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import Experiment, FeatureSpec
from tidemill.domain.intervals import Interval
from tidemill.market.files import FileSource
from tidemill.queries.bars import BarSelection, bar_rows_of
from tidemill.queries.results import result_of
from tidemill.steps.checks.causality import ASSETS, judge_causality
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.market_data.ingest import import_bars
from tidemill.steps.upstream import bring_up_to_date
from tidemill.storage.losses import note_loss, open_loss
from tidemill.study.losses import confirm
from tidemill.study.places import report_path
from tidemill.study.sources import flags_of, study_of, suspected_actions
from tidemill.study.workspace import Workspace

DAY = Interval.parse("1d")
CORRECTED = START + timedelta(days=40)


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder)


def correct(folder: Path, factor: float = 1.01) -> None:
    """Multiply the prices of AAA on one day of the sample on which causality is proven."""
    file = folder / "base.parquet"
    there = (pl.col("symbol") == "AAA") & (pl.col("date") == CORRECTED.date())
    prices = [
        pl.when(there).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    ]
    pl.read_parquet(file).with_columns(prices).write_parquet(file)


@pytest.mark.finished
def test_a_corrected_price_is_computed_again_and_accuses_nobody_of_looking_ahead(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    summed = FeatureSpec(sets=(), names=("ROC5", "sma_20", "ema_20", "rsi_14", "roc_10", "natr_14"))
    experiment = msgspec.structs.replace(experiment, features=summed)
    before, _ = run(workspace, experiment)
    first = before.feature_frame
    correct(folder)
    study, reports = run(workspace, experiment)
    assert {"bars", "features", "ridge", "predictions", "backtest"} <= worked(reports)
    assert not study.feature_frame.equals(first)
    verdicts = {asset: judge_causality(study, asset) for asset in ASSETS}
    assert all(verdict.proof.holds for verdict in verdicts.values()), [verdict.sentence for verdict in verdicts.values()]
    assert "sma_20" in verdicts["features/technical"].proof.proven


@pytest.mark.finished
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


@pytest.mark.finished
def test_a_run_on_history_that_was_never_corrected_says_nothing_of_it(workspace: Workspace, experiment: Experiment) -> None:
    study, reports = run(workspace, experiment)
    assert not reports["bars"].notes
    assert "restated" not in judge_causality(study, ASSETS[0]).sentence


@pytest.mark.finished
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


def test_a_study_that_looked_before_its_data_changed_looks_again(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    study = study_of(workspace, experiment)
    bring_up_to_date(study)
    before = study.adjusted, study.feature_frame, study.training_frame, study.folds
    correct(folder, 1.5)
    pl.read_parquet(folder / "base.parquet").filter(pl.col("date") > START.date()).write_parquet(folder / "base.parquet")
    bring_up_to_date(study)
    anew = study_of(workspace, experiment)
    for held, was, now in zip(
        (study.adjusted, study.feature_frame, study.training_frame),
        before,
        (anew.adjusted, anew.feature_frame, anew.training_frame),
        strict=False,
    ):
        assert not held.equals(was, null_equal=True)
        assert held.equals(now, null_equal=True)
    assert study.folds == anew.folds != before[3]


def without(folder: Path, gone: pl.Expr) -> None:
    file = folder / "base.parquet"
    pl.read_parquet(file).filter(~gone).write_parquet(file)


@pytest.mark.finished
def test_a_symbol_that_was_taken_out_of_a_file_is_traded_no_more_and_stays_for_who_asks_before(
    workspace: Workspace, experiment: Experiment, folder: Path, tmp_path: Path
) -> None:
    before, _ = run(workspace, experiment)
    bars, then = before.bars, datetime.now(UTC)
    without(folder, pl.col("symbol") == "FFF")
    study, reports = run(workspace, experiment)
    assert "FFF" not in study.bars["symbol"]
    assert "FFF" not in study.lake.scan("signals", study.key).collect()["symbol"]
    assert reports["bars"].facts.imported.ended == 328
    assert reports["bars"].notes[0].startswith("The source lost 17 % of its bars (328 of 1,968, ")
    assert "328 bars left the source (FFF, 2021-01-04 to 2021-11-27)" in reports["bars"].notes[1]
    said = workspace.call(result_of, workspace.settings, experiment).sentences
    assert said[0].startswith("The source lost 17 % of its bars")
    assert any("328 bars left the source on" in sentence for sentence in said)
    assert "FFF" not in [row[0] for row in reports["instruments"].table]
    assert study.bars_as_of(then).equals(bars, null_equal=True)
    with pytest.raises(InputError, match="Its bars from 2021-01-04 to 2021-11-27 left the source on"):
        workspace.call(bar_rows_of, workspace.database, BarSelection(symbol="FFF", limit=5))
    known = workspace.call(bar_rows_of, workspace.database, BarSelection(symbol="FFF", limit=5, as_of=then))
    assert len(known.rows) == 5
    # What is left gives what it gives where the symbol never was.
    never = tmp_path / "never"
    never.mkdir()
    pl.read_parquet(folder / "base.parquet").write_parquet(never / "base.parquet")
    fresh, _ = run(workspace, small_experiment(never))
    assert study.lake.scan("equity", study.key).collect().equals(fresh.lake.scan("equity", fresh.key).collect())


@pytest.mark.finished
def test_a_bar_that_left_its_file_ends_and_a_small_loss_is_said_without_alarm(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    run(workspace, experiment)
    without(folder, (pl.col("symbol") == "AAA") & (pl.col("date") == CORRECTED.date()))
    study = study_of(workspace, experiment)
    report = sync_bars(study)
    assert report.notes == (
        f"1 bar left the source (AAA, {CORRECTED:%Y-%m-%d} to {CORRECTED:%Y-%m-%d}): in no result from "
        f"{datetime.now(UTC):%Y-%m-%d} on; `tidemill data show --as-of` shows what was known before.",
    )
    assert study.bars.filter(symbol="AAA", open_time=CORRECTED).is_empty()
    assert study.bars.height == 6 * 328 - 1


@pytest.mark.finished
def test_a_great_loss_is_told_until_it_is_made_good_or_confirmed(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    def told() -> bool:
        study = study_of(workspace, experiment)
        return any("Nothing of it is promoted" in note for note in sync_bars(study).notes)

    file = folder / "base.parquet"
    whole = file.read_bytes()
    assert not told()
    without(folder, pl.col("symbol") == "FFF")
    assert told()
    assert told()  # an import with nothing to do says it again
    without(folder, (pl.col("symbol") == "AAA") & (pl.col("date") == CORRECTED.date()))
    assert told()  # a small loss after it changes nothing of that
    loss = workspace.call(open_loss, workspace.database, "panel", DAY)
    assert loss is not None
    assert (loss.lost, loss.held) == (329, 1968)
    # The same loss found again, as after a kill, is no further one.
    workspace.call(note_loss, workspace.database, "panel", DAY, loss)
    assert workspace.call(open_loss, workspace.database, "panel", DAY) == loss
    other = pl.read_parquet(file).filter(pl.col("symbol") == "AAA").with_columns(symbol=pl.lit("NEW"))
    other.vstack(pl.read_parquet(file).select(other.columns)).write_parquet(file)
    assert told()  # what is new makes up for nothing
    file.write_bytes(whole)
    other.vstack(pl.read_parquet(file).select(other.columns)).write_parquet(file)
    assert not told()
    without(folder, pl.col("symbol").is_in(["EEE", "FFF"]))
    assert told()
    confirmed = confirm(workspace, "panel", DAY)
    assert confirmed is not None
    assert confirmed.lost == 656
    assert not told()
    assert confirm(workspace, "panel", DAY) is None
    with pytest.raises(UnknownNameError, match="panel 1d"):
        confirm(workspace, "pannel", DAY)


@pytest.mark.finished
def test_a_file_that_left_its_folder_takes_its_months_out_of_the_lake(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    later = panel.with_columns(pl.col("date").dt.offset_by("1y")).filter(pl.col("date") >= date(2022, 10, 20))
    later.write_parquet(folder / "later.parquet")
    study, _ = run(workspace, experiment)
    assert max(study.lake.manifests("bars", study.dataset.bars_key)) == "2022-11"
    (folder / "later.parquet").unlink()
    study, _ = run(workspace, experiment)
    assert max(study.lake.manifests("bars", study.dataset.bars_key)) == "2021-11"
    assert max(study.lake.manifests("features", study.features_key)) == "2021-11"
    assert worked(run(workspace, experiment)[1]) == set()


@pytest.mark.finished
def test_a_bar_whose_row_became_unreadable_keeps_its_last_good_version(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    run(workspace, experiment)
    correct(folder, -1.0)
    study = study_of(workspace, experiment)
    report = sync_bars(study)
    assert report.facts.imported.quarantined == 1
    assert report.facts.imported.ended == 0
    assert study.bars.height == 6 * 328


def test_a_corporate_action_that_the_vendor_withdrew_ends_with_its_date(workspace: Workspace, tmp_path: Path) -> None:
    file, closes = tmp_path / "paid.csv", [100.0, 101.0, 99.0, 98.0, 100.0, 102.0, 103.0, 104.0, 105.0, 106.0]

    def write(factors: list[float]) -> None:
        days = [(START + timedelta(days=day)).date() for day in range(len(closes))]
        prices = pl.DataFrame({"symbol": "AAA", "date": days, **dict.fromkeys(("open", "high", "low", "close"), closes)})
        adjusted = [close * factor for close, factor in zip(closes, factors, strict=True)]
        prices.with_columns(pl.Series("adj_close", adjusted), volume=1000.0).write_csv(file)

    experiment = small_experiment(file)
    write([0.5] * 5 + [1.0] * 5)
    study = study_of(workspace, experiment)
    sync_bars(study)
    told, then = study.adjustments, datetime.now(UTC)
    assert told.height == 1
    write([1.0] * 10)
    study = study_of(workspace, experiment)
    sync_bars(study)
    assert study.adjustments.is_empty()
    assert workspace.call(workspace.store.read_adjustments, study.dataset.venue, as_of=then).equals(told)
    # Told again it counts again, also for who asks as of now.
    write([0.5] * 5 + [1.0] * 5)
    study = study_of(workspace, experiment)
    sync_bars(study)
    columns = ("symbol", "open_time", "open", "close")
    assert not study.adjusted["close"].equals(study.bars["close"])
    assert study.bars_as_of(datetime.now(UTC), adjusted=True).select(columns).equals(study.adjusted.select(columns))


def test_an_action_that_is_told_late_is_in_no_earlier_view_and_one_told_anew_counts_once(
    workspace: Workspace, tmp_path: Path
) -> None:
    file, days = tmp_path / "split.csv", [(START + timedelta(days=day)).date() for day in range(12)]

    def write(ex_day: int | None) -> datetime:
        factors = [1.0 if ex_day is None or day >= ex_day else 0.5 for day in range(12)]
        closes = [100.0 + day for day in range(12)]
        prices = pl.DataFrame({"symbol": "AAA", "date": days, **dict.fromkeys(("open", "high", "low", "close"), closes)})
        adjusted = [close * factor for close, factor in zip(closes, factors, strict=True)]
        prices.with_columns(pl.Series("adj_close", adjusted), volume=1000.0).write_csv(file)
        sync_bars(study_of(workspace, small_experiment(file)))
        return datetime.now(UTC)

    def last_close(then: datetime) -> float:
        bars = study_of(workspace, small_experiment(file)).bars_as_of(then, adjusted=True)
        return float(bars["close"][-1])

    moments = [write(ex_day) for ex_day in (None, 5, None, 6)]
    assert [last_close(then) for then in moments] == pytest.approx([111.0, 222.0, 111.0, 222.0])
    assert study_of(workspace, small_experiment(file)).adjustments.height == 1


def test_imports_into_a_named_dataset_merge_and_end_nothing(workspace: Workspace, folder: Path, tmp_path: Path) -> None:
    whole = pl.read_parquet(folder / "base.parquet")
    for number, symbols in enumerate((["AAA", "BBB"], ["CCC"])):
        whole.filter(pl.col("symbol").is_in(symbols)).write_parquet(tmp_path / f"part{number}.parquet")
        report = import_bars(workspace, FileSource(tmp_path / f"part{number}.parquet", venue="mine"), interval=DAY)
        assert report.ended == 0
    assert workspace.call(workspace.store.symbols, "mine", DAY) == ["AAA", "BBB", "CCC"]


def test_a_corrected_price_is_no_suspected_action_any_more_also_where_symbols_are_chosen(
    workspace: Workspace, experiment: Experiment, folder: Path
) -> None:
    file = folder / "base.parquet"
    sound = pl.read_parquet(file)
    day, prices = CORRECTED.date(), ("open", "high", "low", "close")

    def halved(*symbols: str) -> None:
        later = pl.col("symbol").is_in(symbols) & (pl.col("date") >= day)
        sound.with_columns(
            pl.when(later).then(pl.col(name) / 2.0).otherwise(name).alias(name) for name in prices
        ).write_parquet(file)

    chosen = msgspec.structs.replace(
        experiment, dataset=msgspec.structs.replace(experiment.dataset, symbols=("AAA", "BBB", "CCC", "DDD"))
    )

    def suspected() -> list[str]:
        study = study_of(workspace, chosen)
        sync_bars(study)
        return suspected_actions(study)["symbol"].to_list()

    halved("AAA", "BBB")
    assert suspected() == ["AAA", "BBB"]
    halved("BBB")
    assert suspected() == ["BBB"]
    sound.write_parquet(file)
    assert suspected() == []


def test_actions_leave_with_the_column_that_told_them(workspace: Workspace, experiment: Experiment, folder: Path) -> None:
    file = folder / "base.parquet"
    plain = pl.read_parquet(file)
    paid = pl.when(pl.col("date") < CORRECTED.date()).then(pl.col("close") * 0.98).otherwise("close")
    plain.with_columns(adj_close=paid).write_parquet(file)

    def actions() -> set[str]:
        study = study_of(workspace, experiment)
        sync_bars(study)
        return set(study.adjustments["symbol"])

    assert "AAA" in actions()
    plain.write_parquet(file)
    assert actions() == set()


def test_days_that_come_one_by_one_are_suspected_as_those_that_come_together(
    workspace: Workspace, experiment: Experiment, folder: Path, tmp_path: Path
) -> None:
    """AAA is halved from one day on, without an action that tells so; each later day comes in a file of its own."""
    file, day = folder / "base.parquet", CORRECTED + timedelta(days=200)
    whole = pl.read_parquet(file)
    fallen = (pl.col("symbol") == "AAA") & (pl.col("date") >= day.date())
    prices = ("open", "high", "low", "close")
    halved = whole.with_columns(pl.when(fallen).then(pl.col(name) / 2.0).otherwise(name).alias(name) for name in prices)
    halved.filter(pl.col("date") < day.date()).write_parquet(file)
    sync_bars(study_of(workspace, experiment))
    for number in range(3):
        date = (day + timedelta(days=number)).date()
        halved.filter(pl.col("date") == date).write_parquet(folder / f"{date}.parquet")
        study = study_of(workspace, experiment)
        sync_bars(study)
        assert suspected_actions(study).rows() == ([("AAA", day)] if number else [])
    together = tmp_path / "together"
    together.mkdir()
    halved.filter(pl.col("date") <= date).write_parquet(together / "base.parquet")
    fresh = study_of(workspace, small_experiment(together))
    sync_bars(fresh)
    assert flags_of(fresh).equals(flags_of(study))
