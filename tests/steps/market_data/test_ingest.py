"""Imports through the public door, with a real Postgres and a real lake."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import before_day, daily_bars, day_of
from tidemill.calendars import ALWAYS
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS
from tidemill.market.files import FileSource
from tidemill.steps.market_data import ingest
from tidemill.steps.market_data.ingest import ImportReport, import_bars
from tidemill.study.workspace import Workspace

DAY = Interval.parse("1d")


def take(workspace: Workspace, path: Path) -> ImportReport:
    return import_bars(workspace, FileSource(path), interval=DAY)


def lake_bars(workspace: Workspace, venue: str) -> pl.DataFrame:
    return workspace.lake.scan("bars", f"{venue}.1d").sort("symbol", "open_time").collect()


def stored_bars(workspace: Workspace, venue: str) -> pl.DataFrame:
    return workspace.call(workspace.store.read, venue, DAY)


def test_the_same_file_again_changes_nothing(workspace: Workspace, folder: Path) -> None:
    first = take(workspace, folder)
    before = {month: manifest.data_version for month, manifest in workspace.lake.manifests("bars", "panel.1d").items()}
    second = take(workspace, folder)
    assert (first.inserted, first.quarantined) == (6 * 328, 0)
    assert (second.inserted, second.unchanged, second.restated, second.changed_months) == (0, 6 * 328, 0, ())
    assert {m: v.data_version for m, v in workspace.lake.manifests("bars", "panel.1d").items()} == before


def test_postgres_and_lake_hold_the_same_bars(workspace: Workspace, folder: Path) -> None:
    take(workspace, folder)
    columns = ["symbol", "open_time", "open", "high", "low", "close", "volume", "known_at"]
    assert lake_bars(workspace, "panel").select(columns).equals(stored_bars(workspace, "panel").select(columns))


def test_bad_rows_go_to_the_quarantine_with_reason_and_line_and_the_good_ones_in(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text(
        "symbol,date,open,high,low,close,volume\n"
        "AAA,2021-01-04,10,11,9,10.5,100\n"
        "AAA,2021-01-05,10,9,9,10.5,100\n"
        "AAA,2021-01-06,,11,9,10.5,100\n"
        "AAA,2021-01-07,10,11,-1,10.5,100\n"
        "AAA,2021-01-08,ten,11,9,10.5,100\n"
        "AAA,2999-01-08,10,11,9,10.5,100\n"
        "AAA,2021-01-11,10,11,9,10.5,100\n"
        "AAA,2021-01-12,10,11,9,10.5,100\n"
        "AAA,2021-01-12,10,11,9,10.6,100\n"
    )
    report = take(workspace, path)
    held = workspace.call(workspace.store.read_quarantine, "mixed", DAY)
    assert (report.rows, report.inserted, report.quarantined) == (9, 2, 7)
    assert dict(held.select("source_line", "reason").iter_rows()) == {
        3: "high_low",
        4: "null",
        5: "non_positive_price",
        6: "unreadable",
        7: "future",
        9: "conflicting_duplicate",
        10: "conflicting_duplicate",
    }


def test_quarantined_rows_of_the_same_file_are_not_stored_twice(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("symbol,date,open,high,low,close,volume\nAAA,2021-01-04,10,11,9,10.5,100\nAAA,2021-01-05,10,9,9,10.5,100\n")
    take(workspace, path)
    take(workspace, path)
    assert workspace.call(workspace.store.read_quarantine, "bad", DAY).height == 1


def test_a_restated_bar_keeps_both_versions(workspace: Workspace, folder: Path, panel: pl.DataFrame) -> None:
    take(workspace, folder)
    before = datetime.now(UTC)
    changed = day_of(panel, 100).filter(pl.col("symbol") == "AAA").with_columns(volume=pl.lit(77.0))
    changed.write_parquet(folder / "correction.parquet")
    correction = FileSource(folder, only=[folder / "correction.parquet"], calendar=ALWAYS)
    report = import_bars(workspace, correction, interval=DAY)
    start = datetime.combine(changed["date"][0], datetime.min.time(), UTC)
    asked = {"symbols": ("AAA",), "start": start, "end": start + DAY.delta}
    now = workspace.call(workspace.store.read, "panel", DAY, **asked)
    then = workspace.call(workspace.store.read, "panel", DAY, **asked, as_of=before)
    original = day_of(panel, 100).filter(pl.col("symbol") == "AAA")["volume"][0]
    assert (report.restated, report.inserted) == (1, 0)
    assert (now["volume"].to_list(), then["volume"].to_list()) == ([77.0], [original])
    assert lake_bars(workspace, "panel").filter(pl.col("volume") == 77.0).height == 1


def test_a_lake_that_was_lost_is_filled_again_by_the_same_import(workspace: Workspace, folder: Path) -> None:
    take(workspace, folder)
    whole = lake_bars(workspace, "panel")
    workspace.lake.drop("bars", "panel.1d")
    report = take(workspace, folder)
    assert report.inserted == 0
    assert lake_bars(workspace, "panel").equals(whole)


def test_a_month_that_reached_postgres_and_not_the_lake_is_copied_by_the_next_import(
    workspace: Workspace, folder: Path, panel: pl.DataFrame
) -> None:
    take(workspace, folder)
    # As an import leaves it that was cut off between the two: bars of a new month are in Postgres only.
    day = day_of(panel, 328).with_columns(
        pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time"),
        quote_volume=pl.lit(None, pl.Float64),
    )
    bars = day.with_columns(known_at=pl.col("open_time") + DAY.delta).select(BAR_COLUMNS)
    workspace.call(workspace.store.write, "panel", DAY, bars)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")  # where they came from
    assert lake_bars(workspace, "panel").height == 6 * 328
    assert take(workspace, folder).inserted == 0
    assert lake_bars(workspace, "panel").height == 6 * 329


def test_an_import_in_small_batches_gives_the_same_bars(
    workspace: Workspace, tmp_path: Path, panel: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    for place in (one, many):
        place.mkdir()
        for number in range(4):
            part = panel.filter(pl.col("symbol").is_in(["AAA", "BBB"])).sort("date").slice(number * 165, 165)
            part.write_parquet(place / f"part{number}.parquet")
    take(workspace, one)
    monkeypatch.setattr(ingest, "BATCH_ROWS", 150)
    take(workspace, many)
    assert lake_bars(workspace, "many").drop("known_at").equals(lake_bars(workspace, "one").drop("known_at"))
    assert stored_bars(workspace, "many").equals(stored_bars(workspace, "one"))


def test_gaps_are_found_and_close_when_they_are_filled(workspace: Workspace, tmp_path: Path, panel: pl.DataFrame) -> None:
    place = tmp_path / "holes"
    place.mkdir()
    missing = day_of(panel, 50).filter(pl.col("symbol") == "CCC")
    panel.join(missing, on=["symbol", "date"], how="anti").write_parquet(place / "a.parquet")
    report = take(workspace, place)
    assert (report.gaps, report.missing_bars) == (1, 1)
    missing.write_parquet(place / "b.parquet")
    assert take(workspace, place).gaps == 0
    assert workspace.call(workspace.store.read_gaps, "holes", DAY).height == 0


def test_an_end_before_the_start_and_a_start_in_the_future_are_refused(workspace: Workspace, folder: Path) -> None:
    early, late = datetime(2021, 2, 1, tzinfo=UTC), datetime(2021, 3, 1, tzinfo=UTC)
    with pytest.raises(InputError, match="not after the start"):
        import_bars(workspace, FileSource(folder), interval=DAY, start=late, end=early)
    with pytest.raises(InputError, match="future"):
        import_bars(workspace, FileSource(folder), interval=DAY, start=datetime(2999, 1, 1, tzinfo=UTC))


def test_the_sp500_panel_is_imported_with_its_known_defects_told(workspace: Workspace, shared_data: Path) -> None:
    source = shared_data / "sp500_daily_2013_2018"
    report = take(workspace, source)
    assert report.rows == 619_040
    assert report.reasons["null"] == 11
    assert report.inserted + report.quarantined == report.rows
    assert report.calendar == "XNYS"
    assert report.flags["spike"] >= 1
    flags = workspace.lake.scan("flags", "sp500_daily_2013_2018.1d").collect()
    assert flags.filter(pl.col("symbol") == "LNT", pl.col("flag") == "spike")["open_time"].dt.date().to_list() == [
        datetime(2016, 5, 19).date()
    ]


def test_a_panel_without_the_last_days_is_a_prefix_of_the_whole(panel: pl.DataFrame) -> None:
    assert before_day(panel, 10).equals(daily_bars(330).filter(pl.col("date") < panel["date"].unique().sort()[10]))
