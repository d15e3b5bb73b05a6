"""What results are made of: one input is changed, the steps run, and everything is what those steps make from nothing."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.study.panels import START, daily_bars, small_experiment
from tests.study.running import run, worked
from tidemill.calendars import ALWAYS, XNYS, calendar_named
from tidemill.domain.experiment import StrategySpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.performance.drift import last_drift, measure_drift
from tidemill.study import code as code_of
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import ATTRIBUTION, ENGINE_SHARES, EQUITY, LABELS, METRICS, PREDICTIONS, SIGNALS, TRADES
from tidemill.study.workspace import Workspace

RESULTS = (SIGNALS, TRADES, "positions", EQUITY, ATTRIBUTION, ENGINE_SHARES, METRICS)


def held(study: Study, tables: Iterable[str]) -> dict[tuple[str, str], pl.DataFrame]:
    """Table and part → its rows."""
    return {
        (table, part): study.lake.scan(table, study.key, partitions=[part]).collect()
        for table in tables
        for part in study.lake.manifests(table, study.key)
    }


def require_as_from_nothing(workspace: Workspace, study: Study, tables: Iterable[str] = RESULTS) -> None:
    """The tables hold, to the bit, what a run makes that finds none of them."""
    found = held(study, tables)
    for table, part in found:
        study.lake.drop(table, study.key, part)
    anew, _ = run(workspace, study.experiment)
    made = held(anew, tables)
    assert found.keys() == made.keys()
    moved = [key for key in found if not _same(found[key], made[key])]
    assert moved == []


def _same(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """The ledger counts on: what it makes of the trials alone may differ."""
    kept = [name for name in left.columns if name not in {"counted_since"}]
    return left.select(kept).equals(right.select(kept), null_equal=True)


def change_instruments(workspace: Workspace, venue: str, change: Callable[[Instrument], Instrument]) -> None:
    known = workspace.call(workspace.store.read_instruments, venue)
    workspace.call(workspace.store.write_instruments, [change(one) for one in known])


@pytest.fixture
def stocks(tmp_path: Path) -> Path:
    """Bars on the sessions of New York, of which any can be sold short."""
    sessions = calendar_named(XNYS).slots(Interval.parse("1d"), START, START + timedelta(days=480)).cast(pl.Date)
    path = tmp_path / "stocks.parquet"
    daily_bars(480).filter(pl.col("date").is_in(sessions.implode())).write_parquet(path)
    return path


def test_what_an_instrument_costs_and_when_it_trades_decide_the_books(workspace: Workspace, stocks: Path) -> None:
    experiment = small_experiment(stocks)
    study, _ = run(workspace, experiment)
    before = held(study, (EQUITY,))[EQUITY, "ensemble"]

    def dearer(one: Instrument) -> Instrument:
        return msgspec.structs.replace(one, borrow_bps=5_000.0)

    def never_closed(one: Instrument) -> Instrument:
        return msgspec.structs.replace(one, calendar=ALWAYS, calendar_inferred=False)

    for change in (dearer, never_closed):
        change_instruments(workspace, study.dataset.venue, change)
        study, reports = run(workspace, experiment)
        assert {"signals", "backtest", "skill", "portfolio", "report"} <= worked(reports)
        after = held(study, (EQUITY,))[EQUITY, "ensemble"]
        assert not after.equals(before)
        require_as_from_nothing(workspace, study)
        assert worked(run(workspace, experiment)[1]) == set()
        before = after


@pytest.mark.finished
def test_skill_is_that_of_the_predictions_also_where_they_move_no_weight(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder, strategy=StrategySpec(name="sma_cross"))
    study, _ = run(workspace, experiment)
    measure_drift(study)
    skill, drift = _ic(study, "ridge"), last_drift(study.lake, study.key)
    for key, sign in ((study.engine_key(experiment.engines[1]), -1.0), (study.ensemble_key, -1.0)):
        for part, manifest in study.lake.manifests(PREDICTIONS, key).items():
            frame = study.lake.scan(PREDICTIONS, key, partitions=[part]).collect()
            turned = frame.with_columns(pl.col("prediction") * sign)
            study.lake.write(PREDICTIONS, key, part, turned, fingerprint=manifest.fingerprint, metadata=manifest.metadata)
    study, reports = run(workspace, experiment)
    assert "skill" in worked(reports)
    assert _ic(study, "ridge") == pytest.approx(-skill)
    assert measure_drift(study).worked
    assert last_drift(study.lake, study.key) != drift


def _ic(study: Study, book: str) -> float:
    return float(study.lake.scan(METRICS, study.key, partitions=["engines"]).filter(book=book).select("ic").collect().item())


@pytest.mark.finished
def test_a_changed_line_of_attribution_takes_the_books_apart_again(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(folder)
    study, _ = run(workspace, experiment)
    before = {part: manifest.fingerprint for part, manifest in study.lake.manifests(ATTRIBUTION, study.key).items()}
    monkeypatch.setattr(code_of, "attribution", lambda: "another")
    study, reports = run(workspace, experiment)
    assert "backtest" in worked(reports)
    after = {part: manifest.fingerprint for part, manifest in study.lake.manifests(ATTRIBUTION, study.key).items()}
    assert all(after[part] != before[part] for part in before)
    assert worked(run(workspace, experiment)[1]) == set()


@pytest.mark.finished
def test_what_left_with_the_newest_month_is_in_no_label_and_in_no_table_of_postgres(workspace: Workspace, folder: Path) -> None:
    experiment = small_experiment(folder)
    run(workspace, experiment)
    file = folder / "base.parquet"
    bars = pl.read_parquet(file)
    bars.filter(pl.col("date") < bars["date"].max().replace(day=1)).write_parquet(file)
    study, reports = run(workspace, experiment)
    assert "labels" in worked(reports)
    labels = study.lake.scan(LABELS, study.labels_key).collect()
    ends = labels.drop_nulls("label")["label_end_at"].max()
    assert isinstance(ends, datetime)
    assert ends <= study.times[-1] + study.dataset.interval.delta
    for table, part in ((SIGNALS, "book = 'ensemble'"), (EQUITY, "true")):
        rows = study.lake.scan(table, study.key, partitions=["ensemble"]).collect()
        count = workspace.call(workspace.database.fetchval, f"SELECT count(*) FROM {table} WHERE {part}")
        assert count == (rows.drop_nulls("weight") if table == SIGNALS else rows).height
    for part in study.lake.manifests(LABELS, study.labels_key):
        study.lake.drop(LABELS, study.labels_key, part)
    build_training_set(anew := study_of(workspace, experiment))
    assert anew.lake.scan(LABELS, anew.labels_key).collect().equals(labels, null_equal=True)
