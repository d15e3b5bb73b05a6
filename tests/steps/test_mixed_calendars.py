"""A file of coins and stocks: every instrument goes by the calendar of its own, from the import to the trial."""

import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import exchange_calendars
import msgspec
import numpy as np
import polars as pl
import pytest

from tests.study.panels import daily_bars, small_experiment
from tests.study.running import run
from tidemill.calendars import ALWAYS, XNYS, calendar_named, own_slots
from tidemill.domain.experiment import DatasetSpec, Experiment, SplitSpec, StrategySpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.market.files import FileSource
from tidemill.steps.checks.samples import prove_signals
from tidemill.steps.market_data.bars import sync_bars, sync_instruments
from tidemill.steps.market_data.ingest import ImportReport, import_bars
from tidemill.storage.trials import read_trials
from tidemill.strategies import slots
from tidemill.strategies.benchmark import benchmark_weights
from tidemill.study.counting import bars_a_year, data_version
from tidemill.study.metrics import portfolio_metrics
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

DAY = Interval.parse("1d")
COINS, STOCKS = ("AAA", "BBB"), ("KO", "PEP", "TGT", "XOM")


@pytest.fixture(scope="module")
def sessions() -> list[date]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas' own, see tidemill.calendars
        calendar = exchange_calendars.get_calendar("XNYS", start="2020-12-01", end="2022-12-31")
    return [session.date() for session in calendar.sessions]


@pytest.fixture(scope="module")
def mixed(sessions: list[date]) -> pl.DataFrame:
    """330 days from Monday, 4 January 2021: coins every day, stocks on the sessions of New York."""
    bars = daily_bars(330, (*COINS, *STOCKS))
    return bars.filter(pl.col("symbol").is_in(COINS) | pl.col("date").is_in(sessions))


def taken(workspace: Workspace, path: Path, bars: pl.DataFrame, calendar: str | None = None) -> ImportReport:
    bars.write_parquet(path)
    return import_bars(workspace, FileSource(path, calendar=calendar), interval=DAY)


def instruments(workspace: Workspace, venue: str) -> dict[str, Instrument]:
    return {one.symbol: one for one in workspace.call(workspace.store.read_instruments, venue)}


def calendars(workspace: Workspace, venue: str) -> dict[str, str]:
    return {symbol: one.calendar for symbol, one in instruments(workspace, venue).items()}


OWN = dict.fromkeys(COINS, ALWAYS) | dict.fromkeys(STOCKS, XNYS)


def test_each_instrument_of_a_mixed_file_has_its_own_calendar_and_what_goes_with_it(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    report = taken(workspace, tmp_path / "both.parquet", mixed)
    assert (report.calendar, report.gaps, report.quarantined) == ("24/7, XNYS", 0, 0)
    held = instruments(workspace, "both")
    assert {symbol: one.calendar for symbol, one in held.items()} == OWN
    assert {symbol for symbol, one in held.items() if one.can_short and one.borrow_bps == 50.0} == set(STOCKS)


def test_bars_are_judged_and_gaps_are_told_by_the_calendar_of_their_symbol(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    saturday, thursday = date(2021, 3, 6), date(2021, 3, 11)
    stray = mixed.filter(symbol="KO", date=date(2021, 3, 5)).with_columns(date=pl.lit(saturday))
    lost = (pl.col("date") == thursday) & pl.col("symbol").is_in(["AAA", "PEP"])
    report = taken(workspace, tmp_path / "both.parquet", pl.concat([mixed.filter(~lost), stray]))
    assert report.reasons == {"closed_day": 1}
    refused = workspace.call(workspace.store.read_quarantine, "both", DAY)
    assert refused.select("symbol", pl.col("open_time").dt.date()).rows() == [("KO", saturday)]
    assert "XNYS" in refused["detail"][0]
    gaps = workspace.call(workspace.store.read_gaps, "both", DAY)
    assert sorted(gaps.select("symbol", pl.col("start").dt.date(), "missing").rows()) == [
        ("AAA", thursday, 1),
        ("PEP", thursday, 1),
    ]


def test_imports_into_one_named_dataset_keep_each_its_calendars(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    for name, symbols in (("coins", COINS), ("stocks", STOCKS)):
        mixed.filter(pl.col("symbol").is_in(symbols)).write_parquet(tmp_path / f"{name}.parquet")
        report = import_bars(workspace, FileSource(tmp_path / f"{name}.parquet", venue="all"), interval=DAY)
        assert report.gaps == 0
    assert calendars(workspace, "all") == OWN


def test_a_named_calendar_stays_when_the_bars_are_read_again_and_another_name_replaces_it(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    stocks = mixed.filter(pl.col("symbol").is_in(STOCKS))
    for named, expected in ((ALWAYS, ALWAYS), (None, ALWAYS), (XNYS, XNYS), (None, XNYS)):
        taken(workspace, tmp_path / "stocks.parquet", stocks, named)
        assert set(calendars(workspace, "stocks").values()) == {expected}


def test_an_inferred_calendar_follows_the_bars_when_there_are_more_of_them(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    stocks = mixed.filter(pl.col("symbol").is_in(STOCKS))
    taken(workspace, tmp_path / "stocks.parquet", stocks.filter(pl.col("date") < date(2021, 1, 8)))
    assert set(calendars(workspace, "stocks").values()) == {ALWAYS}  # a week proves nothing
    taken(workspace, tmp_path / "stocks.parquet", stocks)
    assert set(calendars(workspace, "stocks").values()) == {XNYS}


def test_an_instrument_of_an_earlier_home_keeps_the_calendar_that_it_has(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    # A home of before the column: what it held counts as named.
    insert = "INSERT INTO instruments VALUES ('both', 'KO', '24/7', '', 'USD', false, 0, 0, 0, 0)"
    workspace.call(workspace.database.execute, insert)
    taken(workspace, tmp_path / "both.parquet", mixed)
    assert calendars(workspace, "both") == OWN | {"KO": ALWAYS}
    assert not instruments(workspace, "both")["KO"].can_short


def test_a_new_file_with_a_bar_of_each_changes_no_calendar_and_a_new_symbol_has_the_commonest(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    last = mixed["date"].max()
    before = mixed.filter(pl.col("date") < last)
    before.write_parquet(folder / "base.parquet")
    experiment = small_experiment(folder)
    sync_bars(study_of(workspace, experiment))
    day = mixed.filter(date=last)
    pl.concat([day, day.head(1).with_columns(symbol=pl.lit("NEW"))]).write_parquet(folder / "day.parquet")
    report = sync_bars(study_of(workspace, experiment))
    assert report.facts.imported.inserted == day.height + 1
    assert calendars(workspace, "both") == OWN | {"NEW": XNYS}
    shown = sync_instruments(study_of(workspace, experiment))
    assert {row[0]: row[1] for row in shown.table} == OWN | {"NEW": XNYS}


def experiment_on(path: Path, *symbols: str, **more: object) -> Experiment:
    return small_experiment(
        path,
        dataset=DatasetSpec(source=f"file:{path}", symbols=symbols),
        strategy=StrategySpec(name="quantile", params={"quantile": 0.34}),
        benchmark="equal_weight",
        **more,
    )


def test_a_run_on_coins_and_stocks_fills_each_on_its_own_days_and_counts_a_year_of_both(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame, sessions: list[date]
) -> None:
    path = tmp_path / "both.parquet"
    mixed.write_parquet(path)
    study, _ = run(workspace, experiment_on(path))
    trades = study.lake.scan("trades", study.key).collect()
    stocks = trades.filter(pl.col("symbol").is_in(STOCKS))
    assert stocks.height > 0
    assert trades.filter(pl.col("symbol").is_in(COINS)).height > 0
    days = pl.concat([stocks["entry_time"], stocks["exit_time"]]).dt.date()
    assert days.is_in(pl.Series(sessions).implode()).all()
    trials = workspace.call(read_trials, workspace.database)
    assert set(trials["periods_per_year"]) == {365.0}
    positions = study.lake.scan("positions", study.key, partitions=["benchmark"]).collect()
    assert set(positions["symbol"]) == {*COINS, *STOCKS}


def test_the_proof_of_signals_sees_where_what_is_there_tells_of_the_next_slot(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "both.parquet"
    mixed.write_parquet(path)
    every_slot = StrategySpec(name="quantile", params={"quantile": 0.34, "every": 1})
    study, _ = run(workspace, msgspec.structs.replace(experiment_on(path), strategy=every_slot))
    assert prove_signals(study).proven == ("quantile",)

    def ahead(name: str, interval: Interval, opens: np.ndarray, held: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return own_slots(name, interval, opens, np.append(held[1:], False))

    monkeypatch.setattr(slots, "own_slots", ahead)
    assert [one.feature for one in prove_signals(study).refuted] == ["quantile"]


def test_a_year_is_that_of_the_symbols_that_an_experiment_chooses(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    path = tmp_path / "both.parquet"
    mixed.write_parquet(path)
    for symbols, year in (((), 365.0), (STOCKS, 252.0), (COINS, 365.0)):
        study = study_of(workspace, experiment_on(path, *symbols))
        sync_bars(study)
        assert bars_a_year(study, study.times) == year


def figures(study: Study) -> dict[str, float]:
    """The Sharpe of each book and the yearly return of the benchmark."""
    frame = portfolio_metrics(study.lake, study.key)
    return dict(zip(frame["book"], frame["sharpe"], strict=True)) | {
        "yearly": frame.filter(book="benchmark")["annual_return"].item()
    }


def test_coins_that_join_late_and_are_not_traded_do_not_make_a_longer_year_of_all_the_time_before(
    workspace: Workspace, tmp_path: Path, mixed: pl.DataFrame
) -> None:
    path = tmp_path / "both.parquet"
    stocks = mixed.filter(pl.col("symbol").is_in(STOCKS))
    late = mixed.filter(pl.col("symbol").is_in(COINS) & (pl.col("date") >= mixed["date"].max() - timedelta(days=20)))
    found = []
    for bars in (stocks, pl.concat([stocks, late])):
        bars.write_parquet(path)
        study, _ = run(workspace, experiment_on(path, splits=SplitSpec(train=80, test=25)))
        trials = workspace.call(read_trials, workspace.database).filter(data_version=data_version(study))
        found.append((figures(study), set(trials["periods_per_year"])))
    (alone, year), (with_coins, longer) = found
    assert year == {252.0}
    assert all(252.0 < each < 275.0 for each in longer)
    assert with_coins["benchmark"] == pytest.approx(alone["benchmark"], rel=0.05)
    assert with_coins["yearly"] == pytest.approx(alone["yearly"], rel=0.05)


def test_what_begins_long_after_the_start_is_not_bought_by_the_benchmark_and_keeps_no_cash(mixed: pl.DataFrame) -> None:
    bars = mixed.select("symbol", pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time"))
    late = datetime(2021, 6, 1, tzinfo=UTC)
    found = benchmark_weights(bars.filter(pl.col("symbol").is_in(STOCKS) | (pl.col("open_time") >= late)), "equal_weight", OWN)
    assert set(found.select("symbol", "weight").iter_rows()) == {(symbol, 1 / len(STOCKS)) for symbol in STOCKS}


def test_a_weekend_start_of_the_benchmark_waits_for_no_one_and_leaves_no_one_out(mixed: pl.DataFrame) -> None:
    bars = mixed.select("symbol", pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time"))
    weekend = datetime(2021, 1, 9, tzinfo=UTC)
    found = benchmark_weights(bars.filter(pl.col("open_time") >= weekend), "equal_weight", OWN)
    monday = weekend + timedelta(days=2)
    assert set(found.rows()) == {(symbol, weekend if symbol in COINS else monday, 1 / 6) for symbol in OWN}


def test_hourly_bars_of_stocks_that_begin_at_half_past_are_imported_and_traded_beside_coins(
    workspace: Workspace, tmp_path: Path
) -> None:
    hour, start = Interval.parse("1h"), datetime(2021, 1, 4, tzinfo=UTC)
    end = start + timedelta(days=40)
    rows = []
    for number, (symbol, name) in enumerate(OWN.items()):
        times = calendar_named(name).slots(hour, start, end)
        close = 50.0 * np.exp(np.cumsum(np.random.default_rng((7, number)).normal(0.0, 0.004, len(times))))
        prices = {name: close.round(4) for name in ("open", "high", "low", "close")}
        rows.append(pl.DataFrame({"symbol": [symbol] * len(times), "time": times, **prices, "volume": 1e6}))
    path = tmp_path / "hours.parquet"
    pl.concat(rows).write_parquet(path)
    experiment = small_experiment(
        path,
        dataset=DatasetSpec(source=f"file:{path}", interval="1h"),
        splits=SplitSpec(train=400, test=120),
        benchmark="equal_weight",
    )
    study, reports = run(workspace, experiment)
    assert reports["bars"].facts.imported.quarantined == 0
    assert calendars(workspace, "hours") == OWN
    trades = study.lake.scan("trades", study.key, partitions=["ensemble"]).collect()
    stocks = trades.filter(pl.col("symbol").is_in(STOCKS))
    assert set(stocks["entry_time"].dt.minute()) == {30}
    assert set(trades.filter(pl.col("symbol").is_in(COINS))["entry_time"].dt.minute()) == {0}
    (year,) = set(workspace.call(read_trials, workspace.database)["periods_per_year"])
    assert year == pytest.approx(8_760 + 252 * 7, rel=0.01)
